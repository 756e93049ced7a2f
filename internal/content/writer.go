package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Writer takes the content of one blob. It is for one goroutine.
type Writer struct {
	ctx      context.Context // of the request that writes; ends the writing
	store    *Store
	file     *sparseFile // nil once committed or closed
	expected digest.Digest
	size     int64 // expected, -1 when unknown
	written  int64
	digester digest.Digester
	err      error // the first failure; nothing can be committed after it

	resumable bool  // what was written outlives Close
	kept      int64 // bytes that were there before
	hashed    int64 // how many of those went through the digester
	bad       bool  // the content is not the blob's
}

// Write implements io.Writer. It fails as soon as the content is longer than
// announced.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.check(len(p))
	}
	if w.err == nil && w.hashed < w.kept {
		_, w.err = io.Copy(io.Discard, w.KeptReader())
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.file.Write(p)
	w.digester.Hash().Write(p[:n])
	w.written += int64(n)
	if err != nil {
		w.err = fmt.Errorf("cannot store %s: %w", w.name(), err)
	}
	return n, w.err
}

func (w *Writer) check(n int) error {
	if w.file == nil {
		return os.ErrClosed
	}
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	if w.size >= 0 && w.written+int64(n) > w.size {
		w.bad = true
		return errs.InvalidArgument("%s is longer than the %d bytes announced", w.name(), w.size)
	}
	return nil
}

func (w *Writer) name() string {
	if w.expected == "" {
		return "a blob"
	}
	return "blob " + w.expected.String()
}

// Size returns the number of bytes there are so far.
func (w *Writer) Size() int64 { return w.written }

// Commit checks size and digest, makes the blob durable (file, then name) and
// returns its digest. It fails with ErrInvalidArgument when the content is not
// what was expected; nothing is kept then.
func (w *Writer) Commit() (digest.Digest, error) {
	if w.err != nil {
		return "", w.err
	}
	if err := w.check(0); err != nil {
		return "", err
	}
	if w.size >= 0 && w.written != w.size {
		return "", errs.InvalidArgument("%s ends after %d of %d bytes", w.name(), w.written, w.size)
	}
	if _, err := io.Copy(io.Discard, w.KeptReader()); err != nil {
		return "", fmt.Errorf("cannot store %s: %w", w.name(), err)
	}
	dgst := w.digester.Digest()
	if w.expected != "" && dgst != w.expected {
		w.bad = true
		return "", errs.InvalidArgument("the content of blob %s has digest %s", w.expected, dgst)
	}
	if err := w.commit(dgst); err != nil {
		return "", fmt.Errorf("cannot store blob %s: %w", dgst, err)
	}
	return dgst, nil
}

func (w *Writer) commit(dgst digest.Digest) error {
	path, err := w.store.path(dgst)
	if err != nil {
		return err
	}
	if err := w.file.finish(); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	if w.resumable && w.written >= minPartial {
		// The name among the parts stays, until Settle: were the blob
		// removed because what it was for failed, it need not come again.
		if err := os.Link(w.file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	} else if err := os.Rename(w.file.Name(), path); err != nil {
		return err
	}
	w.file.Close()
	w.file = nil
	if w.resumable {
		w.store.unclaim(w.expected)
	} else {
		w.store.Settle(dgst)
	}
	return syncDir(filepath.Dir(path))
}

// Close gives up an uncommitted blob, or keeps the part of it for later where
// it came from Resume. After Commit it does nothing.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	if w.resumable {
		return w.closePartial()
	}
	w.file.Close()
	err := os.Remove(w.file.Name())
	w.file = nil
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
