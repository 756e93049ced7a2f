package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Blob opens a blob for reading from the given offset on. The reader asks for
// the rest by HTTP Range when the connection is cut or stands still, and fails
// when the registry sends more or fewer bytes than desc.Size. The digest is the
// caller's to check. The reader is bound to ctx and must be closed.
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if desc.Size < 0 || offset < 0 || offset > desc.Size {
		return nil, errs.InvalidArgument("blob %s has an impossible size of %d bytes", desc.Digest, desc.Size)
	}
	b := &blobReader{repo: r, ctx: ctx, desc: desc, offset: offset, others: r.readers(desc.Digest.String())}
	var failure error
	for b.next() {
		err := b.open()
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		b.server.excuse(err)
		failure = err
	}
	if failure == nil {
		failure = noServer(r.host)
	}
	return nil, failure
}

func noServer(host string) error {
	return errs.Unavailable("no server of registry %s may be asked for blobs", host)
}

// Distrust tells of a reader that Blob gave that its bytes were not those of
// the blob. The mirrors and neighbours that sent any of them are not asked for
// anything for a while, and the one who waits is told. It returns whether there
// were any: then the blob is worth asking for again.
func Distrust(r io.Reader) bool {
	b, ok := r.(*blobReader)
	if !ok {
		return false
	}
	for e := range b.lenders {
		e.rest(distrustTime)
		tell(b.ctx, "%s sent something else than blob %s, and is not asked again for %s", e.host, b.desc.Digest, distrustTime)
	}
	return len(b.lenders) > 0
}

// blobReader reads a blob over as many connections as that takes.
type blobReader struct {
	repo   *Repository
	server *endpoint   // asked at present
	others []*endpoint // to be asked when that one fails
	ctx    context.Context
	desc   ocispec.Descriptor
	offset int64 // of the next byte the caller gets

	body     io.ReadCloser
	failures int                // in a row, without a byte between them
	lenders  map[*endpoint]bool // mirrors and neighbours that sent something
	pace     pace               // of the present one
}

// pace is how fast a server sends. The time its bytes wait for us to take them
// does not count.
type pace struct {
	waited time.Duration
	got    int
}

// leastPace is how many bytes a second a mirror or neighbour has to send: one
// that lets them drip keeps us from asking the next.
const leastPace = 16 << 10

// tooSlow judges a stretch of at least the given time.
func (p *pace) tooSlow(stretch time.Duration) bool {
	if p.waited < stretch {
		return false
	}
	slow := float64(p.got) < leastPace*p.waited.Seconds()
	*p = pace{}
	return slow
}

// next makes the next server that may be asked the present one.
func (b *blobReader) next() bool {
	for len(b.others) > 0 {
		b.server, b.others = b.others[0], b.others[1:]
		b.failures, b.pace = 0, pace{}
		if !b.server.resting() {
			return true
		}
	}
	return false
}

// open asks for the blob from the offset on.
func (b *blobReader) open() error {
	header := http.Header{}
	if b.offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
	}
	resp, err := b.server.do(b.ctx, b.repo.path, call{method: http.MethodGet, path: "/blobs/" + b.desc.Digest.String(), header: header})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return refusal(b.server.host, resp)
	}
	if isHTML(resp.Header) {
		resp.Body.Close()
		return errs.InvalidArgument("registry %s answered with a web page where blob %s was asked for", b.server.host, b.desc.Digest)
	}
	b.body = resp.Body
	return b.position(resp)
}

// position makes the next byte of the body the one at the offset.
func (b *blobReader) position(resp *http.Response) error {
	skip := b.offset
	length := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		var from int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from > b.offset {
			b.drop()
			return errs.Unavailable("registry %s answered a range of blob %s that was not asked for", b.server.host, b.desc.Digest)
		}
		skip = b.offset - from
		if length >= 0 {
			length += from
		}
	}
	if length >= 0 && length != b.desc.Size {
		b.drop()
		return wrongSize(b.desc, length)
	}
	if _, err := io.CopyN(io.Discard, b.body, skip); err != nil {
		b.drop()
		return cannotReach(b.server.host, err)
	}
	return nil
}

func wrongSize(desc ocispec.Descriptor, got int64) error {
	return errs.InvalidArgument("blob %s has %d bytes where its manifest says %d", desc.Digest, got, desc.Size)
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.body == nil {
			if err := b.reopen(); err != nil {
				return 0, err
			}
		}
		n, err := b.receive(p)
		if n > 0 {
			b.failures = 0
			b.offset += int64(n)
			if b.offset > b.desc.Size {
				return 0, wrongSize(b.desc, b.offset)
			}
			return n, nil
		}
		if b.offset == b.desc.Size && err == io.EOF {
			return 0, io.EOF
		}
		if err != nil {
			b.drop()
			if failure := b.failed(err); failure != nil {
				return 0, failure
			}
		}
	}
}

// receive reads from the present connection. It fails where a mirror or
// neighbour is too slow to be of use.
func (b *blobReader) receive(p []byte) (int, error) {
	if !b.server.aide {
		return b.body.Read(p)
	}
	if b.pace.tooSlow(b.server.opts.IdleTimeout) {
		return 0, errIdle
	}
	begun := time.Now()
	n, err := b.body.Read(p)
	b.pace.waited += time.Since(begun)
	b.pace.got += n
	if n > 0 {
		if b.lenders == nil {
			b.lenders = map[*endpoint]bool{}
		}
		b.lenders[b.server] = true
	}
	return n, err
}

// failed counts a broken connection, and waits before the next. It returns the
// error the caller is to see when there is to be no next.
func (b *blobReader) failed(err error) error {
	if cause := context.Cause(b.ctx); cause != nil {
		return cause
	}
	b.failures++
	if b.server.aide {
		// The next goes on for one that has begun.
		err = cannotReach(b.server.host, err)
		b.server.excuse(err)
		if !b.next() {
			return err
		}
		return nil
	}
	if b.failures >= b.server.opts.Attempts {
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return errs.Unavailable("registry %s ended blob %s after %d of %d bytes",
				b.server.host, b.desc.Digest, b.offset, b.desc.Size)
		}
		return cannotReach(b.server.host, err)
	}
	return sleep(b.ctx, backoff(b.server.opts.Backoff, b.failures))
}

// reopen goes on where the connection was cut. A registry that refuses now what
// it served before is not asked again; one that cannot be reached is.
func (b *blobReader) reopen() error {
	for {
		err := b.open()
		if err == nil {
			return nil
		}
		if !passing(err) && !refusedConnection(err) && !b.server.aide {
			return err
		}
		if failure := b.failed(err); failure != nil {
			return failure
		}
	}
}

// refusedConnection tells of a registry that is being restarted, which while a
// blob is under way is worth waiting for.
func refusedConnection(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED)
}

// drop gives the present connection up.
func (b *blobReader) drop() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Close implements io.Closer.
func (b *blobReader) Close() error {
	b.drop()
	return nil
}
