package serve

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// uploads knows which upload a request is writing to, for only one may.
type uploads struct {
	mu     sync.Mutex // guards active
	active map[string]*active
}

// active is a request that writes to an upload.
type active struct {
	control *http.ResponseController
	done    chan struct{} // closed when it no longer writes

	mu      sync.Mutex // guards stopped, and that the deadline is what it says
	stopped bool
}

// stop makes the request's body end, and for good: a body that is read only now
// does not begin.
func (a *active) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	_ = a.control.SetReadDeadline(time.Unix(1, 0))
}

// extend gives the client until then to send something.
func (a *active) extend(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.stopped {
		_ = a.control.SetReadDeadline(until)
	}
}

// take makes the request the one that writes to the upload. A client that was
// cut off comes back before the server has noticed: the newer request is the
// one that counts, the older one is ended and what it brought is kept.
//
// An upload of the same ID in another repository is another one, or who may push
// there could end it.
func (s *Server) take(rq *request) (release func(), err error) {
	key := rq.repository + "@" + rq.upload
	mine := rq.active()
	for {
		s.uploads.mu.Lock()
		other := s.uploads.active[key]
		if other == nil {
			s.uploads.active[key] = mine
			s.uploads.mu.Unlock()
			return func() {
				s.uploads.mu.Lock()
				delete(s.uploads.active, key)
				s.uploads.mu.Unlock()
				close(mine.done)
			}, nil
		}
		s.uploads.mu.Unlock()
		other.stop()
		select {
		case <-other.done:
		case <-rq.Context().Done():
			return nil, rq.Context().Err()
		}
	}
}

// active is the request as one that writes.
func (rq *request) active() *active {
	if rq.writer == nil {
		rq.writer = &active{control: http.NewResponseController(rq.w), done: make(chan struct{})}
	}
	return rq.writer
}

// find takes the upload of the request.
func (s *Server) find(rq *request) (depot.Upload, func(), error) {
	release, err := s.take(rq)
	if err != nil {
		return nil, nil, err
	}
	u, err := s.writes.Upload(rq.Context(), rq.repository, rq.upload)
	if err != nil {
		release()
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalidArgument) {
			err = refuse(http.StatusNotFound, codeBlobUploadUnknown, "%w", err)
		}
		return nil, nil, err
	}
	return u, func() { u.Close(); release() }, nil
}

// patient reads a body and gives a client that stalls up after the limit. What
// went wrong with the client is told from what goes wrong with the storage.
type patient struct {
	body   io.Reader
	writer *active
	limit  time.Duration
	renew  time.Time
	err    error
}

func (p *patient) Read(b []byte) (int, error) {
	if now := time.Now(); now.After(p.renew) {
		p.writer.extend(now.Add(p.limit))
		p.renew = now.Add(p.limit / 4)
	}
	n, err := p.body.Read(b)
	if err != nil && err != io.EOF {
		p.err = err
	}
	if err == io.EOF {
		p.writer.extend(time.Time{}) // what is done with it now may take longer
	}
	return n, err
}

func (s *Server) deadline(rq *request) {
	_ = http.NewResponseController(rq.w).SetReadDeadline(time.Now().Add(s.o.Limits.Body))
}

// bodyOf is the body of an upload's request.
func (s *Server) bodyOf(rq *request) *patient {
	return &patient{body: rq.Body, writer: rq.active(), limit: s.o.Limits.Body}
}

// receive appends a request's body to an upload.
func (s *Server) receive(rq *request, u depot.Upload) error {
	if rq.ContentLength == 0 {
		return nil
	}
	body := s.bodyOf(rq)
	_, err := u.ReadFrom(body)
	if body.err != nil {
		return cutOff(u, body.err)
	}
	return err
}

// cutOff is the answer to a body that ended early; seldom is somebody left to
// read it.
func cutOff(u depot.Upload, err error) error {
	return refuse(http.StatusBadRequest, codeBlobUploadInvalid, "the upload was cut off; its first %d bytes are kept: %w", u.Size(), err)
}

// location is where the upload goes on.
func (rq *request) location(u depot.Upload) {
	h := rq.w.Header()
	h.Set("Location", "/v2/"+rq.repository+"/blobs/uploads/"+u.ID())
	h.Set("Docker-Upload-Uuid", u.ID())
	// A range has no way to say that nothing is there: 0-0 is what registries
	// answer then.
	h.Set("Range", "0-"+itoa(max(u.Size()-1, 0)))
}

// startUpload begins an upload, mounts a blob instead, or takes it whole
// ("Pushing blobs", "Single POST", "Mounting a blob from another repository").
func (s *Server) startUpload(rq *request) error {
	if mount := rq.query.Get("mount"); mount != "" {
		done, err := s.mount(rq, digest.Digest(mount))
		if done || err != nil {
			return err
		}
	} else if whole := rq.query.Get("digest"); whole != "" {
		return s.putWhole(rq, digest.Digest(whole))
	}
	algorithm := digest.Canonical
	if asked := rq.query.Get("digest-algorithm"); asked != "" {
		algorithm = digest.Algorithm(asked)
		if algorithm != digest.SHA256 && algorithm != digest.SHA512 {
			return refuse(http.StatusBadRequest, codeDigestInvalid, "digests of %q are not supported: sha256 and sha512 are", clip(asked))
		}
	}
	u, err := s.writes.StartUpload(rq.Context(), rq.repository, algorithm)
	if err != nil {
		return err
	}
	defer u.Close()
	rq.location(u)
	rq.w.WriteHeader(http.StatusAccepted)
	return nil
}

// putWhole takes a blob in one request.
func (s *Server) putWhole(rq *request, dgst digest.Digest) error {
	if err := depot.CheckDigest(dgst); err != nil {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "%w", err)
	}
	body := s.bodyOf(rq)
	info, err := s.writes.Put(rq.Context(), rq.repository, dgst, rq.ContentLength, body)
	if err != nil {
		if body.err != nil {
			return refuse(http.StatusBadRequest, codeBlobUploadInvalid, "the upload was cut off: %w", body.err)
		}
		return err
	}
	s.created(rq, info)
	s.notify(rq, Event{Action: EventPush, Descriptor: blobDescriptor(info)})
	return nil
}

// created is the answer for a blob that now is in the repository.
func (s *Server) created(rq *request, info depot.Info) {
	h := rq.w.Header()
	h.Del("Range")
	h.Set("Location", "/v2/"+rq.repository+"/blobs/"+info.Digest.String())
	h.Set("Docker-Content-Digest", info.Digest.String())
	rq.w.WriteHeader(http.StatusCreated)
}

// mount gives the repository a blob of another one. What cannot be mounted is
// uploaded: that is no failure.
func (s *Server) mount(rq *request, dgst digest.Digest) (bool, error) {
	if err := depot.CheckDigest(dgst); err != nil {
		return false, refuse(http.StatusBadRequest, codeDigestInvalid, "%w", err)
	}
	from := rq.query.Get("from")
	if from != "" {
		if depot.CheckRepository(from) != nil {
			return false, nil
		}
		return s.mountFrom(rq, from, dgst)
	}
	// Any repository will do that the user may read; a few are tried.
	const tries = 16
	holders, err := s.writes.Holders(rq.Context(), dgst, "", tries)
	if err != nil {
		return false, err
	}
	for _, holder := range holders {
		if done, err := s.mountFrom(rq, holder, dgst); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

func (s *Server) mountFrom(rq *request, from string, dgst digest.Digest) (bool, error) {
	if s.o.Access != nil {
		if _, err := s.o.Access.Authorize(rq.Request, from, Pull); err != nil {
			return false, nil // as if it were not there
		}
	}
	info, err := s.writes.Mount(rq.Context(), from, rq.repository, dgst)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.created(rq, info)
	s.notify(rq, Event{Action: EventMount, From: from, Descriptor: blobDescriptor(info)})
	return true, nil
}

// statusUpload tells how far an upload is.
func (s *Server) statusUpload(rq *request) error {
	u, release, err := s.find(rq)
	if err != nil {
		return err
	}
	defer release()
	rq.location(u)
	rq.w.WriteHeader(http.StatusNoContent)
	return nil
}

// patchUpload appends a chunk ("Pushing a blob in chunks").
func (s *Server) patchUpload(rq *request) error {
	u, release, err := s.find(rq)
	if err != nil {
		return err
	}
	defer release()
	if err := rq.checkRange(u); err != nil {
		return err
	}
	if err := s.receive(rq, u); err != nil {
		return err
	}
	rq.location(u)
	rq.w.WriteHeader(http.StatusAccepted)
	return nil
}

// checkRange holds the Content-Range of a chunk, START-END with both inclusive,
// against what is there and what is coming.
func (rq *request) checkRange(u depot.Upload) error {
	text := rq.Header.Get("Content-Range")
	if text == "" {
		return nil // a stream: it goes on where the upload stands
	}
	from, to, ok := parseRange(text)
	if !ok {
		return refuse(http.StatusBadRequest, codeBlobUploadInvalid, "Content-Range %q is not START-END", clip(text))
	}
	if from != u.Size() {
		rq.location(u)
		return refuse(http.StatusRequestedRangeNotSatisfiable, codeBlobUploadInvalid, "the chunk begins at %d, but the upload has %d bytes", from, u.Size())
	}
	if rq.ContentLength >= 0 && to-from+1 != rq.ContentLength {
		return refuse(http.StatusBadRequest, codeSizeInvalid, "the chunk %s has %d bytes, its Content-Length says %d", text, to-from+1, rq.ContentLength)
	}
	return nil
}

// parseRange reads START-END. Some clients write it as RFC 9110 does for
// answers, "bytes START-END/SIZE", which means the same.
func parseRange(text string) (from, to int64, ok bool) {
	text = strings.TrimPrefix(text, "bytes ")
	text, _, _ = strings.Cut(text, "/")
	a, b, ok := strings.Cut(text, "-")
	if !ok {
		return 0, 0, false
	}
	first, err1 := strconv.ParseUint(a, 10, 62)
	last, err2 := strconv.ParseUint(b, 10, 62)
	if err1 != nil || err2 != nil || last < first {
		return 0, 0, false
	}
	return int64(first), int64(last), true
}

// putUpload closes an upload, with its last or only bytes if there are any
// ("POST then PUT", "Pushing a blob in chunks").
func (s *Server) putUpload(rq *request) error {
	dgst := digest.Digest(rq.query.Get("digest"))
	if err := depot.CheckDigest(dgst); err != nil {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "%w", err)
	}
	u, release, err := s.find(rq)
	if err != nil {
		return err
	}
	defer release()
	if err := rq.checkRange(u); err != nil {
		return err
	}
	var last io.Reader
	body := s.bodyOf(rq)
	if rq.ContentLength != 0 {
		last = body
	}
	info, err := u.Commit(rq.Context(), dgst, last)
	if body.err != nil {
		return cutOff(u, body.err)
	}
	if err != nil {
		return err
	}
	s.created(rq, info)
	s.notify(rq, Event{Action: EventPush, Descriptor: blobDescriptor(info)})
	return nil
}

// cancelUpload forgets an upload ("Cancel a blob upload").
func (s *Server) cancelUpload(rq *request) error {
	u, release, err := s.find(rq)
	if err != nil {
		return err
	}
	defer release()
	if err := u.Cancel(rq.Context()); err != nil {
		return err
	}
	rq.w.WriteHeader(http.StatusNoContent)
	return nil
}
