// Package content keeps blobs by their digest.
//
// It owns one directory: blobs/<algorithm>/<hex> holds what was committed,
// ingest/ what is being written, partial/ what of it is to be gone on with
// later. A blob appears whole, verified and durable, or not at all; once there
// it never changes. What a blob means, and who still needs it, the package must
// not know.
package content

import (
	"context"
	_ "crypto/sha256" // the digests the store accepts
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Info describes a committed blob. Size is in bytes.
type Info struct {
	Digest  digest.Digest
	Size    int64
	ModTime time.Time
}

// Store is a directory of blobs. Its methods may be called concurrently; two
// processes must not open the same directory.
type Store struct {
	dir string

	mu      sync.Mutex             // guards claimed
	claimed map[digest.Digest]bool // blobs of which a writer has the part
}

// Open opens the store in dir, creating it when needed, and removes whatever an
// earlier process left half written, but for the parts of blobs that are kept.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	if err := os.RemoveAll(s.ingest()); err != nil {
		return nil, err
	}
	blobs := filepath.Join(dir, "blobs")
	_, err := os.Lstat(filepath.Join(blobs, string(digest.SHA512)))
	for _, d := range []string{
		s.ingest(),
		s.partials(),
		filepath.Join(blobs, string(digest.SHA256)),
		filepath.Join(blobs, string(digest.SHA512)),
	} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err == nil {
		return s, nil
	}
	// A durable blob in a directory that is not would be none.
	for _, d := range []string{blobs, dir, filepath.Dir(dir)} {
		if err := syncDir(d); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Store) ingest() string { return filepath.Join(s.dir, "ingest") }

// path gives the file of a blob. A digest arrives from outside, so it is
// checked before it becomes a name.
func (s *Store) path(dgst digest.Digest) (string, error) {
	if err := check(dgst); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, "blobs", dgst.Algorithm().String(), dgst.Encoded()), nil
}

func check(dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return errs.InvalidArgument("%q is not a digest: %v", string(dgst), err)
	}
	if a := dgst.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return errs.InvalidArgument("cannot verify %s: only sha256 and sha512 are supported", dgst)
	}
	return nil
}

func missing(dgst digest.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errs.NotFound("blob %s is not in the store", dgst)
	}
	return err
}

// Open opens a blob for reading; the caller closes it. It stays readable when
// the blob is deleted meanwhile. Fails with ErrNotFound.
func (s *Store) Open(dgst digest.Digest) (*os.File, error) {
	path, err := s.path(dgst)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, missing(dgst, err)
	}
	return f, nil
}

// Stat describes a blob. Fails with ErrNotFound.
func (s *Store) Stat(dgst digest.Digest) (Info, error) {
	path, err := s.path(dgst)
	if err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Info{}, missing(dgst, err)
	}
	return Info{dgst, fi.Size(), fi.ModTime()}, nil
}

// ReadAll returns a blob of at most max bytes and checks its digest again, for
// manifests and configurations, where a damaged disk must not become a wrong
// answer. Fails with ErrNotFound, and with ErrInvalidArgument when the blob is
// larger.
func (s *Store) ReadAll(dgst digest.Digest, max int64) ([]byte, error) {
	f, err := s.Open(dgst)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, errs.InvalidArgument("blob %s is larger than %d bytes", dgst, max)
	}
	if got := dgst.Algorithm().FromBytes(data); got != dgst {
		return nil, errs.System("blob %s is damaged on disk: its content has digest %s", dgst, got)
	}
	return data, nil
}

// Put stores what r yields: NewWriter, copy, Commit. It returns the digest and
// the size in bytes.
func (s *Store) Put(ctx context.Context, r io.Reader, expected digest.Digest, size int64) (digest.Digest, int64, error) {
	w, err := s.NewWriter(ctx, expected, size)
	if err != nil {
		return "", 0, err
	}
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return "", 0, err
	}
	dgst, err := w.Commit()
	return dgst, w.written, err
}

// Delete removes a blob. Fails with ErrNotFound.
func (s *Store) Delete(dgst digest.Digest) error {
	path, err := s.path(dgst)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return missing(dgst, err)
	}
	return nil
}

// Walk calls f for every blob, in no particular order, until f fails. A blob
// that disappears during the walk is left out.
func (s *Store) Walk(f func(Info) error) error {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		entries, err := os.ReadDir(filepath.Join(s.dir, "blobs", algorithm.String()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			dgst := digest.NewDigestFromEncoded(algorithm, e.Name())
			if dgst.Validate() != nil {
				continue // not ours
			}
			if err := tell(e, dgst, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell calls f for a file of a directory, unless that is gone by now.
func tell(e fs.DirEntry, dgst digest.Digest, f func(Info) error) error {
	fi, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f(Info{dgst, fi.Size(), fi.ModTime()})
}

// NewWriter starts a blob. With an expected digest and a size (in bytes, -1
// when unknown) every write is held against them; without a digest the content
// is named by its sha256. The caller calls Commit, and Close in every case.
// Writers of the same blob do not disturb each other.
func (s *Store) NewWriter(ctx context.Context, expected digest.Digest, size int64) (*Writer, error) {
	algorithm := digest.Canonical
	if expected != "" {
		if err := check(expected); err != nil {
			return nil, err
		}
		algorithm = expected.Algorithm()
	}
	f, err := os.CreateTemp(s.ingest(), "blob-")
	if err != nil {
		return nil, fmt.Errorf("cannot store a blob: %w", err)
	}
	return &Writer{ctx: ctx, store: s, file: &sparseFile{File: f}, expected: expected, size: size, digester: algorithm.Digester()}, nil
}
