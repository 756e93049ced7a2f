package directory

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// session is what is remembered of an upload between requests: its hash so far.
// After a restart there is none, and the file is hashed at the end.
type session struct {
	algorithm digest.Algorithm
	hash      hash.Hash
	hashed    int64 // bytes the hash has seen
}

// upload implements depot.Upload.
type upload struct {
	d          *Directory
	repository string
	id         string
	path       string
	size       int64
	session    *session
	file       *os.File // nil until needed
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// uploadPath is the file of an upload. The repository is part of its name, so
// that an upload is found in its own only.
func (d *Directory) uploadPath(repository, id string) string {
	sum := sha256.Sum256([]byte(repository))
	return filepath.Join(d.dir, "uploads", id+"."+hex.EncodeToString(sum[:8]))
}

// validID tells whether an ID can be one of ours before it becomes a file name.
func validID(id string) bool {
	return len(id) == 36 && strings.Trim(id, "0123456789abcdef-") == ""
}

// StartUpload implements depot.Depot.
func (d *Directory) StartUpload(_ context.Context, repository string, algorithm digest.Algorithm) (depot.Upload, error) {
	if err := depot.CheckRepository(repository); err != nil {
		return nil, err
	}
	if algorithm == "" {
		algorithm = digest.Canonical
	}
	id := newID()
	path := d.uploadPath(repository, id)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot begin an upload: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return &upload{d: d, repository: repository, id: id, path: path, session: d.session(id, algorithm)}, nil
}

func (d *Directory) session(id string, algorithm digest.Algorithm) *session {
	d.sessionsMu.Lock()
	defer d.sessionsMu.Unlock()
	s := d.sessions[id]
	if s == nil {
		s = &session{algorithm: algorithm}
		d.sessions[id] = s
	}
	return s
}

func (d *Directory) forget(id string) {
	d.sessionsMu.Lock()
	delete(d.sessions, id)
	d.sessionsMu.Unlock()
}

// Upload implements depot.Depot.
func (d *Directory) Upload(_ context.Context, repository, id string) (depot.Upload, error) {
	if !validID(id) {
		return nil, depot.UploadUnknown(id)
	}
	path := d.uploadPath(repository, id)
	fi, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, depot.UploadUnknown(id)
	}
	if err != nil {
		return nil, err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		if err := unshare(path); err != nil {
			return nil, fmt.Errorf("cannot go on with an upload: %w", err)
		}
	}
	return &upload{d: d, repository: repository, id: id, path: path, size: fi.Size(), session: d.session(id, digest.Canonical)}, nil
}

// unshare gives an upload a file of its own. Its file is also that of a blob
// when the process was killed while it was being committed.
func unshare(path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(path), "copy-")
	if err != nil {
		return err
	}
	defer os.Remove(to.Name())
	_, err = to.ReadFrom(from)
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(to.Name(), path)
	}
	return err
}

// ExpireUploads implements depot.Depot.
func (d *Directory) ExpireUploads(ctx context.Context, since time.Time) (n int, err error) {
	dir := filepath.Join(d.dir, "uploads")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) || err == nil && !fi.ModTime().Before(since) {
			continue
		}
		if err != nil {
			return n, err
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return n, err
		}
		id, _, _ := strings.Cut(e.Name(), ".")
		d.forget(id)
		n++
	}
	return n, nil
}

func (u *upload) ID() string  { return u.id }
func (u *upload) Size() int64 { return u.size }

// Close implements depot.Upload.
func (u *upload) Close() error {
	if u.file == nil {
		return nil
	}
	err := u.file.Close()
	u.file = nil
	return err
}

// Cancel implements depot.Upload.
func (u *upload) Cancel(context.Context) error {
	u.Close()
	u.d.forget(u.id)
	return os.Remove(u.path)
}

// buffers are what blobs pass through: read once, hashed and written from the
// same memory.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// writeback is after how many bytes the kernel is asked to begin writing.
const writeback = 8 << 20

// ReadFrom implements depot.Upload.
func (u *upload) ReadFrom(r io.Reader) (n int64, err error) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for begun := u.size; ; {
		got, rerr := readFull(r, *buffer)
		if got > 0 {
			if err := u.write((*buffer)[:got]); err != nil {
				return n, err
			}
			n += int64(got)
		}
		if u.size-begun >= writeback {
			startWriteback(u.file, begun, u.size-begun)
			begun = u.size
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// readFull is io.ReadFull with the error as it was and with what was read.
func readFull(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var got int
		got, err = r.Read(b[n:])
		n += got
	}
	return n, err
}

// write appends to the file. What does not fit on the disk is not counted, and
// written again should the client come back.
func (u *upload) write(b []byte) error {
	if u.file == nil {
		f, err := os.OpenFile(u.path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			return depot.UploadUnknown(u.id)
		}
		if err != nil {
			return err
		}
		u.file = f
	}
	n, err := u.file.WriteAt(b, u.size)
	u.hash(b[:n])
	u.size += int64(n)
	if err != nil {
		return fmt.Errorf("cannot store the upload: %w", err)
	}
	return nil
}

// hash lets the running hash see bytes that follow what it has seen.
func (u *upload) hash(b []byte) {
	s := u.session
	if s.hashed != u.size {
		return // of before a restart
	}
	if s.hash == nil {
		s.hash = s.algorithm.Hash()
	}
	s.hash.Write(b)
	s.hashed += int64(len(b))
}

// Commit implements depot.Upload.
func (u *upload) Commit(ctx context.Context, dgst digest.Digest, last io.Reader) (depot.Info, error) {
	info := depot.Info{Digest: dgst}
	if err := depot.CheckDigest(dgst); err != nil {
		return info, err
	}
	if u.size == 0 {
		if last == nil {
			last = bytes.NewReader(nil)
		}
		done, info, err := u.small(ctx, dgst, last)
		if done || err != nil {
			return info, err
		}
	}
	if last != nil {
		if _, err := u.ReadFrom(last); err != nil {
			return info, err
		}
	}
	if err := u.verify(dgst); err != nil {
		u.Cancel(ctx)
		return info, err
	}
	if err := u.sync(); err != nil {
		return info, err
	}
	info.Size = u.size
	u.d.forget(u.id)
	return u.d.adopt(ctx, u.repository, info, u.path, nil)
}

// small commits an upload that came in one piece and is small enough for the
// database: nothing is written to its file. When it is larger, what was read
// is in the file.
func (u *upload) small(ctx context.Context, dgst digest.Digest, r io.Reader) (done bool, info depot.Info, err error) {
	data := make([]byte, 0, 4096)
	for {
		n, rerr := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if rerr == io.EOF {
			break
		}
		if len(data) > inline || rerr != nil {
			u.session.algorithm = dgst.Algorithm()
			if err := u.write(data); err != nil {
				return false, info, err
			}
			return false, info, rerr
		}
		if len(data) == cap(data) {
			data = append(data, make([]byte, min(len(data), inline+1-len(data)))...)[:len(data)]
		}
	}
	info = depot.Info{Digest: dgst, Size: int64(len(data))}
	got := dgst.Algorithm().FromBytes(data)
	if got != dgst {
		u.Cancel(ctx)
		return false, info, &depot.Mismatch{Want: dgst, Got: got, WantSize: -1, GotSize: info.Size}
	}
	if info, err = u.d.adopt(ctx, u.repository, info, "", data); err != nil {
		return false, info, err
	}
	return true, info, u.Cancel(ctx)
}

// verify holds the bytes against the digest, reading them again when the running
// hash has not seen all, or is of another algorithm.
func (u *upload) verify(dgst digest.Digest) error {
	s := u.session
	h := s.hash
	if h == nil || s.hashed != u.size || s.algorithm != dgst.Algorithm() {
		f, err := os.Open(u.path)
		if err != nil {
			return err
		}
		defer f.Close()
		h = dgst.Algorithm().Hash()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
	}
	if got := digest.NewDigest(dgst.Algorithm(), h); got != dgst {
		return &depot.Mismatch{Want: dgst, Got: got, WantSize: -1, GotSize: u.size}
	}
	return nil
}

// sync makes the file durable.
func (u *upload) sync() error {
	if u.file == nil {
		f, err := os.OpenFile(u.path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		u.file = f
	}
	if err := u.file.Sync(); err != nil {
		return fmt.Errorf("cannot store the upload: %w", err)
	}
	return u.Close()
}

// Put implements depot.Depot.
func (d *Directory) Put(ctx context.Context, repository string, dgst digest.Digest, size int64, r io.Reader) (depot.Info, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return depot.Info{}, err
	}
	u, err := d.StartUpload(ctx, repository, dgst.Algorithm())
	if err != nil {
		return depot.Info{}, err
	}
	if size >= 0 {
		r = depot.Sized(r, dgst, size)
	}
	info, err := u.Commit(ctx, dgst, r)
	if err != nil {
		u.Cancel(ctx)
	}
	return info, err
}
