package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// PushOptions says how a blob is brought to a registry; the zero value is usable.
type PushOptions struct {
	// MountFrom lists repositories of the same registry that may have the
	// blob, best first: it is mounted from the first that does, without a
	// byte sent. A repository the credentials do not open is passed over.
	MountFrom []string
	// Progress is told how many bytes of the blob are behind us. It is called
	// from the goroutine that sends. The number goes down when the registry
	// has lost bytes and they are sent again.
	Progress func(written int64)
	// ChunkSize sends the blob in chunks of so many bytes, each its own
	// request, for registries behind something that bounds a request; 0 sends
	// it in one. A registry that asks for larger chunks gets them.
	ChunkSize int64
	// Session is where an earlier PushBlob of the same blob to the same
	// repository was sending it when it was interrupted, as Sending was told;
	// empty is nowhere. The upload goes on there if the registry knows it yet.
	Session string
	// Sending is told where the blob is being sent to, each time that changes,
	// and "" when that place is none any more. One that is not told so at the
	// end can be gone on with: it is not given up when PushBlob is interrupted.
	Sending func(session string)
}

// Outcome is how a blob came to be in a repository.
type Outcome string

// What PushBlob found or did.
const (
	Existed  Outcome = "existed"  // the repository had it
	Mounted  Outcome = "mounted"  // from PushResult.From
	Uploaded Outcome = "uploaded" // byte by byte
)

// PushResult tells what PushBlob did.
type PushResult struct {
	Outcome Outcome
	From    string // the repository it was mounted from
	Resumed int64  // bytes that did not have to be sent again after a cut, or an earlier PushBlob
}

// maxMounts bounds how many repositories are tried: each is a request, and they
// are guesses.
const maxMounts = 8

// PushBlob brings a blob into the repository (OCI distribution specification
// 1.1, "Pushing Blobs"): not at all when it is there, by a mount, or by an
// upload. An upload that is cut goes on where the registry says it is; where
// the registry cannot say, it starts again.
//
// open gives the bytes from an offset on, and may be called several times; what
// it returns is closed, and not read after PushBlob has returned. The blob is
// never held in memory. The registry verifies the digest, an errdefs.
// ErrInvalidArgument tells that it did not hold.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func(ctx context.Context, offset int64) (io.ReadCloser, error), o PushOptions) (PushResult, error) {
	if err := desc.Digest.Validate(); err != nil || desc.Size < 0 {
		return PushResult{}, errs.InvalidArgument("blob %s of %d bytes cannot be pushed", desc.Digest, desc.Size)
	}
	there, err := r.hasBlob(ctx, desc)
	if err != nil || there {
		return PushResult{Outcome: Existed}, err
	}
	up := &upload{repo: r, desc: desc, open: open, opts: o, chunk: o.ChunkSize}
	if from, err := up.mount(ctx); err != nil || from != "" {
		return PushResult{Outcome: Mounted, From: from}, err
	}
	if o.Session != "" {
		up.takeUp(ctx)
	}
	if err := up.run(ctx); err != nil {
		return PushResult{}, err
	}
	return PushResult{Outcome: Uploaded, Resumed: up.resumed}, nil
}

// hasBlob asks whether the repository has the blob.
func (r *Repository) hasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	resp, err := r.send(ctx, call{method: http.MethodHead, path: "/blobs/" + desc.Digest.String(), actions: pushing})
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		resp.Body.Close()
		return true, nil
	case http.StatusNotFound:
		resp.Body.Close()
		return false, nil
	}
	return false, refusal(r.host, resp)
}

// upload is one blob on its way to the registry.
type upload struct {
	repo *Repository
	desc ocispec.Descriptor
	open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	opts PushOptions

	location *url.URL // of the session; nil when there is none
	old      bool     // the session is of an earlier push
	offset   int64    // bytes the registry has
	done     bool     // it has taken the blob in
	chunk    int64    // bytes of one request; 0 is all of them
	failures int      // in a row, without progress between them
	resumed  int64
}

// mount tries the candidates. An upload session that a registry opens instead
// is kept for the upload.
func (u *upload) mount(ctx context.Context) (from string, err error) {
	tried := 0
	for _, from := range u.opts.MountFrom {
		if from == u.repo.path || from == "" {
			continue
		}
		if tried++; tried > maxMounts {
			break
		}
		resp, err := u.repo.send(ctx, call{
			method: http.MethodPost, actions: pushing, also: []string{"repository:" + from + ":" + pulling},
			path: "/blobs/uploads/?mount=" + url.QueryEscape(u.desc.Digest.String()) + "&from=" + url.QueryEscape(from),
		})
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusCreated:
			u.abandon(ctx)
			return from, nil
		case http.StatusAccepted:
			u.abandon(ctx)
			u.begun(resp)
		}
	}
	return "", nil
}

// run uploads until the registry has the blob or there is no hope.
func (u *upload) run(ctx context.Context) error {
	for !u.done {
		before := u.offset
		err := u.step(ctx)
		if err == nil {
			continue
		}
		if err := u.failed(ctx, err, u.offset > before); err != nil {
			if !u.keeps(ctx, err) {
				u.abandon(context.WithoutCancel(ctx))
			}
			return err
		}
	}
	return nil
}

// step is one request: it opens a session, sends a chunk, or finishes.
func (u *upload) step(ctx context.Context) error {
	switch {
	case u.location == nil:
		return u.start(ctx)
	case u.offset == u.desc.Size:
		return u.finish(ctx, 0)
	case u.chunk == 0 && u.offset == 0:
		return u.finish(ctx, u.desc.Size)
	}
	size := u.desc.Size - u.offset
	if u.chunk > 0 {
		size = min(size, u.chunk)
	}
	return u.patch(ctx, size)
}

func (u *upload) start(ctx context.Context) error {
	resp, err := u.repo.send(ctx, call{method: http.MethodPost, path: "/blobs/uploads/", actions: pushing})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return refusal(u.repo.host, resp)
	}
	resp.Body.Close()
	u.offset = 0
	if !u.begun(resp) {
		return errs.InvalidArgument("registry %s opened an upload and did not say where", u.repo.host)
	}
	return nil
}

// patch sends a chunk.
func (u *upload) patch(ctx context.Context, size int64) error {
	header := http.Header{}
	header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.offset+size-1))
	resp, err := u.transfer(ctx, http.MethodPatch, u.location, size, header)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent {
		return refusal(u.repo.host, resp)
	}
	resp.Body.Close()
	u.offset += size
	u.begun(resp)
	// Bytes the registry says it does not have are sent again.
	if has, ok := received(resp.Header); ok && has < u.offset {
		sent := u.offset
		u.offset = has
		return errs.Unavailable("registry %s kept %d bytes of blob %s where %d were sent", u.repo.host, has, u.desc.Digest, sent)
	}
	return nil
}

// finish closes the session, with the last bytes of the blob or without any.
func (u *upload) finish(ctx context.Context, size int64) error {
	target := *u.location
	query := target.Query()
	query.Set("digest", u.desc.Digest.String())
	target.RawQuery = query.Encode()
	resp, err := u.transfer(ctx, http.MethodPut, &target, size, http.Header{})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return refusal(u.repo.host, resp)
	}
	resp.Body.Close()
	u.done = true
	u.tell(u.desc.Size)
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != u.desc.Digest.String() {
		return errs.InvalidArgument("registry %s took blob %s in as %s", u.repo.host, u.desc.Digest, got)
	}
	u.moved(nil)
	return nil
}

// transfer sends bytes of the blob from the offset on. They are not sent twice
// without asking the registry what it has of them, unless it refused them
// unread for want of a token.
func (u *upload) transfer(ctx context.Context, method string, target *url.URL, size int64, header http.Header) (*http.Response, error) {
	header.Set("Content-Type", "application/octet-stream")
	c := call{method: method, url: target, header: header, actions: pushing, length: size}
	var bodies []*outgoing
	if size > 0 {
		c.body = func() (io.ReadCloser, error) {
			rc, err := u.open(ctx, u.offset)
			if err != nil {
				return nil, &sourceError{err}
			}
			body := &outgoing{source: rc, tell: u.tell, at: u.offset, left: size}
			bodies = append(bodies, body)
			return body, nil
		}
	}
	resp, err := u.repo.send(ctx, c)
	for _, body := range bodies {
		if failure := body.end(); failure != nil && err != nil {
			err = failure
		}
	}
	return resp, err
}

func (u *upload) tell(written int64) {
	if u.opts.Progress != nil {
		u.opts.Progress(written)
	}
}

// failed decides what becomes of an upload after a failure: nil goes on, maybe
// in another session.
func (u *upload) failed(ctx context.Context, err error, progress bool) error {
	var source *sourceError
	if errors.As(err, &source) {
		return source.error
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if progress {
		u.failures = 0
	}
	u.failures++
	if small := u.repo.client.opts.smallChunk; tooMuch(err) && u.chunk == 0 && u.desc.Size > small {
		u.chunk = small // something before the registry bounds requests
		return u.resume(ctx)
	}
	var refused *ResponseError
	answered := errors.As(err, &refused)
	if answered && u.old && !overloaded(refused.Status) { // whatever it has there, it is not what we think
		u.abandon(ctx)
		u.offset, u.resumed = 0, 0
		return nil
	}
	stale := answered && (refused.Status == http.StatusNotFound || refused.Status == http.StatusRequestedRangeNotSatisfiable ||
		refused.Code == "BLOB_UPLOAD_UNKNOWN" || refused.Code == "BLOB_UPLOAD_INVALID" || refused.Code == "RANGE_INVALID")
	passing := stale || !answered && errors.Is(err, errdefs.ErrUnavailable) || answered && overloaded(refused.Status)
	if !passing || u.failures >= u.repo.client.opts.Attempts || u.location == nil && stale {
		return err
	}
	if err := sleep(ctx, max(backoff(u.repo.client.opts.Backoff, u.failures), waitOf(err))); err != nil {
		return err
	}
	return u.resume(ctx)
}

func tooMuch(err error) bool {
	var refused *ResponseError
	return errors.As(err, &refused) && refused.Status == http.StatusRequestEntityTooLarge
}

// sourceError is the caller's own failure to give the bytes.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// outgoing is the part of a blob that one request carries.
type outgoing struct {
	tell func(int64)

	mu     sync.Mutex // guards what follows: the transport may read on after it has answered
	source io.ReadCloser
	at     int64
	left   int64
	failed error
	ended  bool
}

// Read implements io.Reader. It fails where the source has fewer bytes than the
// descriptor says.
func (o *outgoing) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return 0, io.ErrClosedPipe
	}
	if o.left == 0 {
		return 0, io.EOF
	}
	n, err := o.source.Read(p[:min(int64(len(p)), o.left)])
	o.at += int64(n)
	o.left -= int64(n)
	if n > 0 {
		o.tell(o.at)
	}
	if err == io.EOF && o.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		o.failed = &sourceError{err}
		return n, o.failed
	}
	return n, nil
}

// Close implements io.Closer.
func (o *outgoing) Close() error {
	o.end()
	return nil
}

// end closes the source, which is not read any more when end returns, and tells
// what was wrong with it.
func (o *outgoing) end() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ended {
		o.ended = true
		o.source.Close()
	}
	return o.failed
}
