package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"

	"github.com/gantry-containers/gantry/internal/errs"
)

// pageNotFound is what a client asking for an unknown path is told.
var pageNotFound = errs.NotFound("page not found")

// response notes whether the answer has begun, after which an error cannot be
// told any more.
type response struct {
	http.ResponseWriter
	started  bool
	hijacked bool // the connection is no longer the HTTP server's
}

func (w *response) WriteHeader(status int) {
	w.started = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.started = true
	return w.ResponseWriter.Write(p)
}

// Flush sends what was written so far.
func (w *response) Flush() {
	w.started = true
	_ = http.NewResponseController(w.ResponseWriter).Flush() // an error shows at the next write
}

// Hijack hands over the connection.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = err == nil
	w.started = w.started || w.hijacked
	return conn, buf, err
}

// statusOf is the one table from the class of an error to the status of HTTP.
// The outermost error that has a class decides.
func statusOf(err error) int {
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	table := [...]struct {
		class  error
		status int
	}{
		{errdefs.ErrNotFound, http.StatusNotFound},
		{errdefs.ErrInvalidArgument, http.StatusBadRequest},
		{errdefs.ErrOutOfRange, http.StatusBadRequest},
		{errdefs.ErrFailedPrecondition, http.StatusBadRequest},
		{errdefs.ErrConflict, http.StatusConflict},
		{errdefs.ErrAlreadyExists, http.StatusConflict},
		{errdefs.ErrUnauthenticated, http.StatusUnauthorized},
		{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
		{errdefs.ErrPermissionDenied, http.StatusForbidden},
		{errdefs.ErrNotModified, http.StatusNotModified},
		{errdefs.ErrNotImplemented, http.StatusNotImplemented},
		{errdefs.ErrInternal, http.StatusInternalServerError},
		{errdefs.ErrDataLoss, http.StatusInternalServerError},
		{context.Canceled, http.StatusInternalServerError},
		{context.DeadlineExceeded, http.StatusInternalServerError},
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		for _, row := range table {
			if e == row.class || hasClass(e, row.class) {
				return row.status
			}
		}
		if joined, ok := e.(interface{ Unwrap() []error }); ok {
			return statusOfAny(joined.Unwrap())
		}
	}
	return http.StatusInternalServerError
}

// hasClass asks this error alone, not the ones it wraps.
func hasClass(err, class error) bool {
	is, ok := err.(interface{ Is(error) bool })
	return ok && is.Is(class)
}

func statusOfAny(list []error) int {
	for _, err := range list {
		if status := statusOf(err); status != http.StatusInternalServerError {
			return status
		}
	}
	return http.StatusInternalServerError
}

func writeError(w http.ResponseWriter, status int, message string) {
	_ = writeJSON(w, status, &common.ErrorResponse{Message: message})
}

// writeJSON answers with a document, as Docker does: without HTML escapes and
// with a newline at the end.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status == http.StatusNotModified || status == http.StatusNoContent {
		return nil
	}
	return encodeJSON(w, v)
}

func encodeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// noContent answers that it was done, or why not.
func noContent(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// flushDelay is how long the bytes of a stream may wait for more of them: short
// enough that nobody sees it, long enough that a log of a million lines does
// not cost a million system calls.
const flushDelay = 2 * time.Millisecond

// stream writes an answer whose parts should arrive as they come. Close it
// before the handler returns.
type stream struct {
	mu      sync.Mutex // guards what follows
	w       *response
	pending bool
	closed  bool
}

// begin starts the stream: the client gets the head of the answer at once.
func begin(w *response) *stream {
	w.WriteHeader(http.StatusOK)
	w.Flush()
	return &stream{w: w}
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.w.Write(p)
	if !s.pending {
		s.pending = true
		time.AfterFunc(flushDelay, s.flush)
	}
	return n, err
}

func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = false
	if !s.closed {
		s.w.Flush()
	}
}

// Close sends the rest. The connection must not be touched after the handler
// has returned, so a flush still due does nothing.
func (s *stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.w.Flush()
}

// onceStream begins a stream when there is something to send, or when somebody
// decides that it is time, and not when an error came before. The zero value is
// ready for use.
type onceStream struct {
	mu       sync.Mutex // guards what follows
	stream   *stream
	canceled bool
}

// begin returns the stream; nil after it was canceled.
func (o *onceStream) begin(w *response) *stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stream == nil && !o.canceled {
		o.stream = begin(w)
	}
	return o.stream
}

// cancel tells whether the stream has not begun, and then it never will.
func (o *onceStream) cancel() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.canceled = o.stream == nil
	return o.canceled
}

// close ends the stream if it has begun, and keeps it from beginning.
func (o *onceStream) close() {
	if !o.cancel() {
		o.stream.Close()
	}
}
