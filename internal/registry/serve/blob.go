package serve

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

const octets = "application/octet-stream"

// contentHeaders are the headers of a blob or manifest, which never changes
// under its digest.
func contentHeaders(h http.Header, dgst digest.Digest, mediaType string) {
	h.Set("Content-Type", mediaType)
	h.Set("Docker-Content-Digest", dgst.String())
	h.Set("Etag", `"`+dgst.String()+`"`)
}

// getBlob sends a blob or tells of it ("Pulling blobs", "Checking if content
// exists in the registry").
func (s *Server) getBlob(rq *request) error {
	if rq.Method == http.MethodHead {
		info, err := s.stat(rq)
		if err != nil {
			return err
		}
		h := rq.w.Header()
		contentHeaders(h, info.Digest, octets)
		h.Set("Accept-Ranges", "bytes")
		h.Set("Cache-Control", "max-age=31536000")
		h.Set("Content-Length", itoa(info.Size))
		rq.w.WriteHeader(http.StatusOK)
		return nil
	}
	content, info, err := s.depot.Open(rq.Context(), rq.repository, rq.digest)
	if err != nil {
		if !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		return s.relayBlob(rq, err)
	}
	defer content.Close()
	s.sendBlob(rq, content, info)
	return nil
}

// stat finds a blob here or upstream.
func (s *Server) stat(rq *request) (depot.Info, error) {
	info, err := s.depot.Stat(rq.Context(), rq.repository, rq.digest)
	if err == nil || !errors.Is(err, errdefs.ErrNotFound) {
		return info, err
	}
	if s.o.Upstream != nil {
		info, uerr := s.o.Upstream.Stat(rq.Context(), rq.repository, rq.digest)
		if uerr == nil || !errors.Is(uerr, errdefs.ErrNotFound) {
			return info, uerr
		}
	}
	return info, s.unknownBlob(rq, err)
}

// unknownBlob is the answer to who asks for a blob that is not there.
func (s *Server) unknownBlob(rq *request, err error) error {
	if exists, eerr := s.depot.Exists(rq.Context(), rq.repository); eerr == nil && !exists {
		return refuse(http.StatusNotFound, codeNameUnknown, "this registry has no repository %s", rq.repository)
	}
	return refuse(http.StatusNotFound, codeBlobUnknown, "%w", err)
}

// maxRanges is how many ranges of a blob one request gets. Each is a request of
// its own where blobs are in a bucket, and a header has room for thousands.
const maxRanges = 16

// sendBlob answers with a blob, or the ranges of it that were asked for (RFC
// 9110, section 14). A file goes to the socket in the kernel.
func (s *Server) sendBlob(rq *request, content io.ReadSeeker, info depot.Info) {
	h := rq.w.Header()
	contentHeaders(h, info.Digest, octets)
	h.Set("Cache-Control", "max-age=31536000")
	if strings.Count(rq.Header.Get("Range"), ",") >= maxRanges {
		rq.Header.Del("Range") // which a server may (RFC 9110, section 14.2)
	}
	w, done := s.impatient(rq)
	defer done()
	http.ServeContent(w, rq.Request, "", time.Time{}, content)
	s.notify(rq, Event{Action: EventPull, Descriptor: blobDescriptor(info)})
}

// unread is where a blob goes whose client may stop reading: it is given up after
// the limit.
type unread struct {
	http.ResponseWriter
	control *http.ResponseController
	limit   time.Duration
	renew   time.Time
}

func (u *unread) Write(b []byte) (int, error) {
	if now := time.Now(); now.After(u.renew) {
		_ = u.control.SetWriteDeadline(now.Add(u.limit)) // as it is without one otherwise
		u.renew = now.Add(u.limit / 4)
	}
	return u.ResponseWriter.Write(b)
}

// impatient is the writer for a blob. In plain HTTP/1 it is the one there is: a
// file goes through it in the kernel, which counts by itself. In HTTP/2 a client
// holds a stream up without holding up the connection.
func (s *Server) impatient(rq *request) (w http.ResponseWriter, done func()) {
	if rq.TLS == nil && rq.ProtoMajor < 2 {
		return rq.w, func() {}
	}
	control := http.NewResponseController(rq.w)
	return &unread{ResponseWriter: rq.w, control: control, limit: s.o.Limits.Unread},
		func() { _ = control.SetWriteDeadline(time.Time{}) } // the connection goes on
}

// relayBlob answers with a blob that only the upstream has.
func (s *Server) relayBlob(rq *request, missing error) error {
	if s.o.Upstream == nil {
		return s.unknownBlob(rq, missing)
	}
	content, info, err := s.o.Upstream.Blob(rq.Context(), rq.repository, rq.digest)
	if errors.Is(err, errdefs.ErrNotFound) {
		return s.unknownBlob(rq, missing)
	}
	if err != nil {
		return err
	}
	defer content.Close()
	if seeker, ok := content.(io.ReadSeeker); ok {
		s.sendBlob(rq, seeker, info)
		return nil
	}
	contentHeaders(rq.w.Header(), info.Digest, octets)
	rq.w.Header().Set("Content-Length", itoa(info.Size))
	rq.w.WriteHeader(http.StatusOK)
	w, done := s.impatient(rq)
	defer done()
	if _, err := io.Copy(w, content); err != nil {
		s.log.Warn("a blob was cut off on its way from the upstream", "repository", rq.repository, "digest", rq.digest, "error", err)
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
	s.notify(rq, Event{Action: EventPull, Descriptor: blobDescriptor(info)})
	return nil
}

// deleteBlob takes a blob from a repository ("Deleting Blobs"). One that a
// manifest names stays: deletion is disabled for it.
func (s *Server) deleteBlob(rq *request) error {
	err := s.writes.DeleteBlob(rq.Context(), rq.repository, rq.digest)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return s.unknownBlob(rq, err)
	case errors.Is(err, errdefs.ErrConflict):
		return refuse(http.StatusMethodNotAllowed, codeUnsupported, "%w", err)
	case err != nil:
		return err
	}
	rq.w.WriteHeader(http.StatusAccepted)
	s.notify(rq, Event{Action: EventDelete, Descriptor: ocispec.Descriptor{MediaType: octets, Digest: rq.digest}})
	return nil
}

func blobDescriptor(info depot.Info) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: octets, Digest: info.Digest, Size: info.Size}
}

// notify tells what happened.
func (s *Server) notify(rq *request, e Event) {
	if s.o.Notify == nil {
		return
	}
	e.Repository, e.User, e.Time = rq.repository, rq.user, time.Now()
	e.Remote, e.Agent = rq.RemoteAddr, rq.UserAgent()
	e.Method, e.Host, e.Scheme = rq.Method, rq.Host, "http"
	if rq.TLS != nil || rq.URL.Scheme == "https" { // a proxy in front may have spoken TLS
		e.Scheme = "https"
	}
	s.o.Notify(e)
}
