// Package errs makes errors that read as one sentence and carry a class.
//
// The classes are those of github.com/containerd/errdefs, so that
// errors.Is(err, errdefs.ErrNotFound) holds, while the text stays exactly what
// a person should read: the class is never appended to it. The table from class
// to HTTP status lives in the server, the one to exit code in the command line.
package errs

import (
	"fmt"

	"github.com/containerd/errdefs"
)

type classed struct {
	error
	class error
}

func (e *classed) Is(target error) bool { return target == e.class }
func (e *classed) Unwrap() error        { return e.error }

func with(class error, format string, args []any) error {
	return &classed{fmt.Errorf(format, args...), class}
}

// NotFound is for a thing that was named and does not exist.
func NotFound(format string, args ...any) error { return with(errdefs.ErrNotFound, format, args) }

// InvalidArgument is for a request that can never succeed as it was made.
func InvalidArgument(format string, args ...any) error {
	return with(errdefs.ErrInvalidArgument, format, args)
}

// Conflict is for a request the present state of a thing forbids.
func Conflict(format string, args ...any) error { return with(errdefs.ErrConflict, format, args) }

// NotModified is for a request that asks for the state a thing is in already.
func NotModified(format string, args ...any) error {
	return with(errdefs.ErrNotModified, format, args)
}

// Forbidden is for a request the policy of the engine refuses.
func Forbidden(format string, args ...any) error {
	return with(errdefs.ErrPermissionDenied, format, args)
}

// Unauthorized is for missing or wrong credentials.
func Unauthorized(format string, args ...any) error {
	return with(errdefs.ErrUnauthenticated, format, args)
}

// Unavailable is for something that may work when it is tried again.
func Unavailable(format string, args ...any) error {
	return with(errdefs.ErrUnavailable, format, args)
}

// NotImplemented is for a valid request this engine or this kernel cannot serve.
func NotImplemented(format string, args ...any) error {
	return with(errdefs.ErrNotImplemented, format, args)
}

// System is for a failure that is neither the caller's nor explained by state.
func System(format string, args ...any) error { return with(errdefs.ErrInternal, format, args) }
