package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// The codes of the specification's table ("Error Codes").
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeBlobUploadInvalid   = "BLOB_UPLOAD_INVALID"
	codeBlobUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooManyRequests     = "TOOMANYREQUESTS"
	// The table has none for failures of the registry, which are 5xx.
	codeUnavailable = "UNAVAILABLE"
	codeUnknown     = "UNKNOWN"
)

// refusal is an answer that is no success.
type refusal struct {
	status int
	code   string
	detail any
	err    error
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

func refuse(status int, code, format string, args ...any) error {
	return &refusal{status, code, nil, fmt.Errorf(format, args...)}
}

// accessError is what the Authorizer said.
type accessError struct {
	error
	action Action
}

func (e *accessError) Unwrap() error { return e.error }

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

type errorBody struct {
	Errors []errorEntry `json:"errors"`
}

// fail answers a request with its error.
func (s *Server) fail(rq *request, err error) {
	status, entries := s.explain(rq, err)
	// That the client left is no failure of ours. It is answered all the same: it
	// may only have stalled, and no answer at all is a 200 to it.
	if status >= 500 && rq.Context().Err() == nil {
		s.log.Error("the registry failed a request", "method", rq.Method, "path", rq.URL.Path, "error", err)
	}
	if err := rq.json(status, errorBody{entries}); err != nil {
		s.log.Debug("an answer could not be sent", "error", err)
	}
}

// explain is the table from error to status and code.
func (s *Server) explain(rq *request, err error) (int, []errorEntry) {
	one := func(status int, code string) (int, []errorEntry) {
		return status, []errorEntry{{Code: code, Message: err.Error()}}
	}
	var missing *depot.Missing
	if errors.As(err, &missing) {
		entries := make([]errorEntry, len(missing.Digests))
		for i, d := range missing.Digests {
			single := depot.Missing{Repository: missing.Repository, Digests: missing.Digests[i : i+1]}
			entries[i] = errorEntry{codeManifestBlobUnknown, single.Error(), map[string]string{"digest": d.String()}}
		}
		return http.StatusNotFound, entries
	}
	var access *accessError
	if errors.As(err, &access) {
		switch {
		case errors.Is(err, errdefs.ErrUnauthenticated):
			rq.w.Header().Set("WWW-Authenticate", s.o.Access.Challenge(rq.Request, rq.repository, access.action))
			return one(http.StatusUnauthorized, codeUnauthorized)
		case errors.Is(err, errdefs.ErrPermissionDenied):
			return one(http.StatusForbidden, codeDenied)
		}
	}
	var mismatch *depot.Mismatch
	if errors.As(err, &mismatch) {
		if mismatch.WantSize >= 0 && mismatch.WantSize != mismatch.GotSize {
			return one(http.StatusBadRequest, codeSizeInvalid)
		}
		return one(http.StatusBadRequest, codeDigestInvalid)
	}
	var refused *refusal
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &refused):
		return refused.status, []errorEntry{{refused.code, err.Error(), refused.detail}}
	case errors.As(err, &tooLarge):
		return one(http.StatusRequestEntityTooLarge, codeSizeInvalid)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return http.StatusInsufficientStorage, []errorEntry{{Code: codeUnavailable, Message: "the storage of this registry is full"}}
	case errors.Is(err, errdefs.ErrResourceExhausted):
		rq.w.Header().Set("Retry-After", "1")
		return one(http.StatusTooManyRequests, codeTooManyRequests)
	case errors.Is(err, errdefs.ErrUnavailable):
		return one(http.StatusServiceUnavailable, codeUnavailable)
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrConflict),
		errors.Is(err, errdefs.ErrPermissionDenied), errors.Is(err, errdefs.ErrUnauthenticated):
		return one(http.StatusInternalServerError, codeUnknown) // of another registry, most of all
	}
	// What else fails speaks of files and servers that are nobody's business.
	return http.StatusInternalServerError, []errorEntry{{Code: codeUnknown, Message: "the registry failed: its log says why"}}
}

// json answers with a document.
func (rq *request) json(status int, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	h := rq.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", itoa(int64(len(body))))
	rq.w.WriteHeader(status)
	if rq.Method == http.MethodHead {
		return nil
	}
	_, err = rq.w.Write(body)
	return err
}
