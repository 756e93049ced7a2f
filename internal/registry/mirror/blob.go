package mirror

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Stat implements serve.Upstream.
func (m *Mirror) Stat(ctx context.Context, repository string, dgst digest.Digest) (depot.Info, error) {
	r, repo, err := m.open(ctx, repository)
	if err != nil {
		return depot.Info{}, err
	}
	desc, err := repo.StatBlob(ctx, dgst)
	r.note(err)
	return depot.Info{Digest: dgst, Size: desc.Size, Time: time.Now()}, err
}

// Blob implements serve.Upstream. What it returns is an io.ReadSeekCloser.
func (m *Mirror) Blob(ctx context.Context, repository string, dgst digest.Digest) (io.ReadCloser, depot.Info, error) {
	key := repository + "@" + dgst.String()
	m.mu.Lock()
	f := m.fetches[key]
	if f == nil {
		f = newFetch(dgst)
		m.fetches[key] = f
		go m.fetchBlob(context.WithoutCancel(ctx), key, repository, f)
	}
	f.readers.Add(1)
	m.mu.Unlock()
	if err := f.started(ctx); err != nil {
		f.release()
		return nil, depot.Info{}, err
	}
	return &follower{fetch: f, ctx: ctx}, depot.Info{Digest: dgst, Size: f.size, Time: time.Now()}, nil
}

// fetchBlob brings a blob here, for all who follow f. When the last of them is
// gone and it has arrived, nothing of it is left but what the depot keeps.
func (m *Mirror) fetchBlob(ctx context.Context, key, repository string, f *fetch) {
	err := m.bring(ctx, repository, f)
	m.mu.Lock()
	delete(m.fetches, key)
	m.mu.Unlock()
	f.finish(err)
	if err != nil {
		if !errors.Is(err, errdefs.ErrNotFound) {
			m.opts.Count("error", 1)
			m.log.Warn("a blob could not be mirrored", "repository", repository, "digest", f.digest, "error", err)
		}
		return
	}
	m.opts.Count("fetch", 1)
	m.opts.Count("bytes", float64(f.size))
}

func (m *Mirror) bring(ctx context.Context, repository string, f *fetch) error {
	r, repo, err := m.open(ctx, repository)
	if err != nil {
		return err
	}
	desc, err := repo.StatBlob(ctx, f.digest)
	r.note(err)
	if err != nil {
		return err
	}
	if err := f.begin(m.opts.Spool, desc.Size); err != nil {
		return err
	}
	source, err := m.source(ctx, r, repository, repo, desc)
	r.note(err)
	if err != nil {
		return err
	}
	defer source.Close()
	_, err = m.opts.Depot.Put(ctx, repository, f.digest, desc.Size, io.TeeReader(source, f))
	var lie *depot.Mismatch
	if errors.As(err, &lie) {
		return errs.InvalidArgument("registry %s sent a blob that is not the one it was asked for: %w", r.Registry, err)
	}
	return err
}

// source is the blob in another repository mirrored from the same registry, which
// has just said that this one has it too, or else from there. What came from
// elsewhere, or was pushed here, it does not get by: a registry that says it has
// a blob need not, and whoever may read its mirror could read anything then.
func (m *Mirror) source(ctx context.Context, r *remote, repository string, repo *registry.Repository, desc ocispec.Descriptor) (io.ReadCloser, error) {
	const tries = 16
	holders, err := m.opts.Depot.Holders(ctx, desc.Digest, "", tries)
	if err != nil {
		return nil, err
	}
	for _, holder := range holders {
		if from, _ := m.find(holder); from != r || holder == repository {
			continue
		}
		if f, _, err := m.opts.Depot.Open(ctx, holder, desc.Digest); err == nil {
			return f, nil
		}
	}
	return repo.Blob(ctx, desc, 0)
}

// fetch is a blob on its way. Its bytes go to the depot and to a file without a
// name, from which those who asked for it read what is there already. The last
// byte is held back until the whole has the right digest, so that nobody takes a
// wrong blob for whole.
type fetch struct {
	digest  digest.Digest
	readers sync.WaitGroup
	ready   chan struct{} // closed when size is known, or err

	size int64    // from ready on
	file *os.File // from ready on, unless err

	mu      sync.Mutex // guards what follows
	written int64
	done    bool
	err     error
	moved   chan struct{} // closed, and replaced, when one of them changes
}

func newFetch(dgst digest.Digest) *fetch {
	return &fetch{digest: dgst, ready: make(chan struct{}), moved: make(chan struct{})}
}

// started waits until the size is known.
func (f *fetch) started(ctx context.Context) error {
	select {
	case <-f.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f.file == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.err
	}
	return nil
}

func (f *fetch) begin(spool string, size int64) error {
	fd, err := unix.Open(spool, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		f.file = os.NewFile(uintptr(fd), "blob on its way")
	} else if f.file, err = os.CreateTemp(spool, "blob-*"); err == nil { // a file system without O_TMPFILE
		err = os.Remove(f.file.Name())
	}
	if err != nil {
		return errs.System("cannot spool a blob: %w", err)
	}
	f.size = size
	close(f.ready)
	return nil
}

// Write takes bytes as they arrive.
func (f *fetch) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	f.mu.Lock()
	f.written += int64(n)
	f.wake()
	f.mu.Unlock()
	return n, err
}

// wake tells those who wait. The caller holds mu.
func (f *fetch) wake() {
	close(f.moved)
	f.moved = make(chan struct{})
}

// finish ends the fetch. The file lives as long as somebody reads it.
func (f *fetch) finish(err error) {
	f.mu.Lock()
	f.done, f.err = true, err
	f.wake()
	f.mu.Unlock()
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
	go func() {
		f.readers.Wait()
		if f.file != nil {
			f.file.Close()
		}
	}()
}

func (f *fetch) release() { f.readers.Done() }

// available is how far one may read. A channel tells when it changes.
func (f *fetch) available() (until int64, done bool, err error, moved <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	until = f.written
	if !f.done || f.err != nil {
		until = min(until, f.size-1)
	}
	return until, f.done, f.err, f.moved
}

// follower reads a blob while it arrives.
type follower struct {
	*fetch
	ctx    context.Context
	offset int64
	closed bool
}

// Read implements io.Reader.
func (r *follower) Read(p []byte) (int, error) {
	for {
		if r.offset >= r.size {
			// An empty blob has no last byte to hold back.
			if _, done, err, moved := r.available(); !done && r.size == 0 {
				if err := r.wait(moved); err != nil {
					return 0, err
				}
				continue
			} else if err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		until, done, err, moved := r.available()
		if n := until - r.offset; n > 0 {
			got, err := r.file.ReadAt(p[:min(int64(len(p)), n)], r.offset)
			r.offset += int64(got)
			if got > 0 {
				err = nil
			}
			return got, err
		}
		if err != nil {
			return 0, err
		}
		if done {
			return 0, io.ErrUnexpectedEOF
		}
		if err := r.wait(moved); err != nil {
			return 0, err
		}
	}
}

func (r *follower) wait(moved <-chan struct{}) error {
	select {
	case <-moved:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// Seek implements io.Seeker.
func (r *follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errs.InvalidArgument("cannot seek to %d", offset)
	}
	r.offset = offset
	return offset, nil
}

// Close implements io.Closer.
func (r *follower) Close() error {
	if !r.closed {
		r.closed = true
		r.release()
	}
	return nil
}
