package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Codes of the OCI distribution specification's error table that callers tell
// apart.
const (
	CodeManifestUnknown = "MANIFEST_UNKNOWN"
	CodeNameUnknown     = "NAME_UNKNOWN"
	CodeDenied          = "DENIED"
	CodeUnauthorized    = "UNAUTHORIZED"
)

// ResponseError is a registry's refusal. It is an errdefs.ErrNotFound,
// ErrUnauthenticated, ErrPermissionDenied or ErrUnavailable by its status.
type ResponseError struct {
	Host   string
	Status int
	// Code is the registry's own code for it, as MANIFEST_UNKNOWN; empty
	// when the answer did not follow the specification.
	Code    string
	Message string
	// RetryAfter is how long it asked to be left alone; 0 when it did not.
	RetryAfter time.Duration
	// Limit is what the registry told of its limits; nil is nothing.
	Limit *RateLimit
}

// Error says what the registry said, as "manifest unknown: manifest unknown",
// and what may help when that is that it was asked too often.
func (e *ResponseError) Error() string {
	text := e.said()
	if e.Status != http.StatusTooManyRequests {
		return text
	}
	var hints []string
	if e.Limit != nil {
		hints = append(hints, e.Limit.String())
	}
	if e.RetryAfter > 0 {
		hints = append(hints, "it asks to wait for "+e.RetryAfter.Round(time.Second).String())
	}
	if len(hints) > 0 {
		text += " (" + strings.Join(hints, "; ") + ")"
	}
	return text
}

func (e *ResponseError) said() string {
	if e.Code != "" {
		code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
		if e.Message == "" {
			return code
		}
		return code + ": " + e.Message
	}
	text := fmt.Sprintf("registry %s answered %d %s", e.Host, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Is gives the error its class.
func (e *ResponseError) Is(target error) bool {
	switch e.Status {
	case http.StatusUnauthorized:
		return target == errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return target == errdefs.ErrPermissionDenied
	case http.StatusNotFound:
		return target == errdefs.ErrNotFound
	}
	return target == errdefs.ErrUnavailable && overloaded(e.Status)
}

// maxErrorBody bounds what is read of an answer that reports an error.
const maxErrorBody = 64 << 10

// refusal turns an answer that is no success into an error, and closes it.
func refusal(host string, resp *http.Response) error {
	defer resp.Body.Close()
	e := &ResponseError{Host: host, Status: resp.StatusCode, RetryAfter: askedWait(resp.Header), Limit: rateLimit(resp.Header)}
	if resp.StatusCode == http.StatusUnauthorized &&
		strings.Contains(resp.Header.Get("Www-Authenticate"), `error="insufficient_scope"`) {
		// The token was good, and not for this: as a registry without
		// tokens says it with 403.
		e.Status, e.Code, e.Message = http.StatusForbidden, CodeDenied, "requested access to the resource is denied"
		return e
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(data, &body) == nil && len(body.Errors) > 0 {
		e.Code, e.Message = body.Errors[0].Code, body.Errors[0].Message
		return e
	}
	if isText(resp.Header) {
		line, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
		e.Message = strings.ToValidUTF8(line[:min(len(line), 200)], "")
	}
	return e
}

// waitOf is how long a registry that refused asked to be left alone.
func waitOf(err error) time.Duration {
	var refused *ResponseError
	if errors.As(err, &refused) {
		return min(refused.RetryAfter, maxWait)
	}
	return 0
}

func isText(h http.Header) bool {
	t, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return t == "text/plain"
}

func isHTML(h http.Header) bool {
	t, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return t == "text/html" || t == "application/xhtml+xml"
}

// cannotReach makes a sentence of a request that got no answer.
func cannotReach(host string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	for _, said := range []error{errdefs.ErrUnauthenticated, errdefs.ErrInvalidArgument, errdefs.ErrUnavailable, errdefs.ErrPermissionDenied, errdefs.ErrNotFound} {
		if errors.Is(err, said) {
			return err // a sentence already
		}
	}
	var source *sourceError
	if errors.As(err, &source) {
		return source
	}
	// The URL says less than the host, and may carry a signature in its query.
	var inURL *url.Error
	for errors.As(err, &inURL) {
		err = inURL.Err
	}
	return errs.Unavailable("cannot reach registry %s: %w", host, err)
}
