package shim

import (
	"errors"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// Classes of the errors of Start and Exec when the program is the problem.
var (
	ErrNotFound      = ocirt.ErrNotFound      // there is no such program: exit code 127
	ErrNotExecutable = ocirt.ErrNotExecutable // it cannot be executed: exit code 126
)

// wireError is an error on its way to the daemon: its sentence, its class, and
// those types whose fields the daemon may want to look at.
type wireError struct {
	Message string
	Class   string           `json:",omitempty"`
	Exec    *ocirt.ExecError `json:",omitempty"`
	Step    *ocirt.StepError `json:",omitempty"`
	Bind    *wireBind        `json:",omitempty"`
}

type wireBind struct {
	Mapping portproxy.Mapping
	Errno   syscall.Errno
	Holder  string `json:",omitempty"`
}

// classes are the errdefs that survive the way. A switch would have to be kept
// twice.
func classes() map[string]error {
	return map[string]error{
		"notfound": errdefs.ErrNotFound, "invalid": errdefs.ErrInvalidArgument,
		"conflict": errdefs.ErrConflict, "exists": errdefs.ErrAlreadyExists,
		"precondition": errdefs.ErrFailedPrecondition, "forbidden": errdefs.ErrPermissionDenied,
		"unavailable": errdefs.ErrUnavailable, "notimplemented": errdefs.ErrNotImplemented,
		"internal": errdefs.ErrInternal,
	}
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Message: err.Error()}
	for name, class := range classes() {
		if errors.Is(err, class) {
			w.Class = name
		}
	}
	errors.As(err, &w.Exec)
	errors.As(err, &w.Step)
	var bind *portproxy.BindError
	if errors.As(err, &bind) {
		w.Bind = &wireBind{Mapping: bind.Mapping, Holder: bind.Holder}
		errors.As(bind.Err, &w.Bind.Errno)
	}
	return w
}

// err makes it an error again that errors.Is and errors.As understand as they
// did the original.
func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	e := &remoteError{message: w.Message, class: classes()[w.Class]}
	switch {
	case w.Exec != nil:
		e.cause = w.Exec
	case w.Step != nil:
		e.cause = w.Step
	case w.Bind != nil:
		e.cause = &portproxy.BindError{Mapping: w.Bind.Mapping, Err: w.Bind.Errno, Holder: w.Bind.Holder}
	}
	return e
}

type remoteError struct {
	message string
	class   error
	cause   error
}

func (e *remoteError) Error() string        { return e.message }
func (e *remoteError) Is(target error) bool { return e.class != nil && target == e.class }
func (e *remoteError) Unwrap() error        { return e.cause }
