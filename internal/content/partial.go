package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/du"
)

// PartialAge is how long a partial blob waits for somebody to go on with it.
const PartialAge = 24 * time.Hour

// minPartial is the size in bytes from which on a part of a blob is worth
// keeping.
const minPartial = 64 << 10

// Resume is NewWriter for a blob that takes long to come: what was written
// before Close is kept, over a restart of the process too, and the next Resume
// goes on with it. The caller writes what follows the first Kept bytes. A part
// that turned out not to be of the blob is not kept, nor is a small one; all of
// it is after Commit, until Settle. While one writer is at work on a blob,
// others begin it anew, and keep nothing.
func (s *Store) Resume(ctx context.Context, expected digest.Digest, size int64) (*Writer, error) {
	if err := check(expected); err != nil {
		return nil, err
	}
	if !s.claim(expected) {
		return s.NewWriter(ctx, expected, size)
	}
	w := &Writer{ctx: ctx, store: s, expected: expected, size: size, digester: expected.Algorithm().Digester(), resumable: true}
	err := w.openPartial()
	if err != nil {
		s.unclaim(expected)
		return nil, fmt.Errorf("cannot store blob %s: %w", expected, err)
	}
	return w, nil
}

func (w *Writer) openPartial() error {
	path := w.store.partial(w.expected)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return err
	}
	if st.Nlink == 1 && (w.size < 0 || st.Size <= w.size) {
		w.kept, w.written = st.Size, st.Size
		w.file = &sparseFile{File: f}
		_, err = f.Seek(0, io.SeekEnd)
		return err
	}
	// Too long, or a blob under its other name, which must not be written to.
	f.Close()
	if err := os.Remove(path); err != nil {
		return err
	}
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	w.file = &sparseFile{File: f}
	return err
}

// Kept returns how many bytes of the blob an earlier writer left.
func (w *Writer) Kept() int64 { return w.kept }

// KeptReader reads the bytes an earlier writer left. Nothing may be written
// before it was read to its end; Write does so itself otherwise.
func (w *Writer) KeptReader() io.Reader { return keptReader{w} }

// keptReader hashes what it reads, so that the rest can be hashed after it.
type keptReader struct{ w *Writer }

func (r keptReader) Read(p []byte) (int, error) {
	w := r.w
	if w.file == nil {
		return 0, os.ErrClosed
	}
	left := w.kept - w.hashed
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := w.file.ReadAt(p[:min(int64(len(p)), left)], w.hashed)
	w.digester.Hash().Write(p[:n])
	w.hashed += int64(n)
	if n > 0 {
		err = nil
	} else if err == io.EOF {
		err = io.ErrUnexpectedEOF // somebody cut it
	}
	return n, err
}

// Settle removes what is kept of a blob to go on with, unless a writer is at
// work on it: whoever needed the blob has it.
func (s *Store) Settle(dgst digest.Digest) {
	if check(dgst) != nil || !s.claim(dgst) {
		return
	}
	defer s.unclaim(dgst)
	_ = os.Remove(s.partial(dgst)) // most have none; what stays goes with its age
}

// Discard forgets what was written: Close keeps nothing of it.
func (w *Writer) Discard() { w.bad = true }

// closePartial keeps the file for the next writer, if it is any good.
func (w *Writer) closePartial() error {
	defer w.store.unclaim(w.expected)
	err := w.file.finish()
	if cerr := w.file.Close(); err == nil {
		err = cerr
	}
	if w.bad || w.written < minPartial {
		err = os.Remove(w.file.Name())
	}
	w.file = nil
	return err
}

func (s *Store) partials() string { return filepath.Join(s.dir, "partial") }

func (s *Store) partial(dgst digest.Digest) string {
	return filepath.Join(s.partials(), dgst.Algorithm().String()+"-"+dgst.Encoded())
}

func (s *Store) claim(dgst digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claimed[dgst] {
		return false
	}
	if s.claimed == nil {
		s.claimed = map[digest.Digest]bool{}
	}
	s.claimed[dgst] = true
	return true
}

func (s *Store) unclaim(dgst digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.claimed, dgst)
}

// WalkPartials calls f for the part of each blob that is kept, in no particular
// order, until f fails. Info.Size is the size in bytes of the part.
func (s *Store) WalkPartials(f func(Info) error) error {
	entries, err := os.ReadDir(s.partials())
	if err != nil {
		return err
	}
	for _, e := range entries {
		algorithm, hex, _ := strings.Cut(e.Name(), "-")
		dgst := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
		if check(dgst) != nil {
			continue // not ours
		}
		if err := tell(e, dgst, f); err != nil {
			return err
		}
	}
	return nil
}

// DropPartials removes the parts of blobs that nobody wrote to since the given
// time and nobody is writing to, and returns what they took on disk, in bytes.
func (s *Store) DropPartials(before time.Time) (freed int64, err error) {
	err = s.WalkPartials(func(info Info) error {
		if info.ModTime.After(before) || !s.claim(info.Digest) {
			return nil
		}
		defer s.unclaim(info.Digest)
		size, err := du.Blocks(s.partial(info.Digest))
		if err == nil {
			err = os.Remove(s.partial(info.Digest))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			freed += size
		}
		return err
	})
	return freed, err
}
