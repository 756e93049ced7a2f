package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Error is a request the engine refused.
type Error struct {
	Status  int    // HTTP status
	Message string // as the engine worded it
}

func (e *Error) Error() string { return e.Message }

// IsNotFound says that the engine answered 404.
func IsNotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == StatusNotFound
}

// IsInvalid says that the engine answered 400.
func IsInvalid(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == StatusBadRequest
}

// IsConflict says that the engine answered 409.
func IsConflict(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == StatusConflict
}

// IsLost says that no engine answered: none can be reached, or it went away
// before it had answered.
func IsLost(err error) bool {
	var connect *ConnectError
	return errors.As(err, &connect) || isStale(err)
}

// Lost says of an answer that ended in the middle that its engine went away.
func Lost(err error) error {
	return &brokenError{errors.New("the engine went away in the middle of its answer"), err}
}

// ConnectError is an engine that cannot be reached at all.
type ConnectError struct {
	Host string
	Err  error
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("cannot connect to the engine at %s: %v", e.Host, cause(e.Err))
}

func (e *ConnectError) Unwrap() error { return e.Err }

// NothingThere says that no process listens at the address, as opposed to one
// that may not be used.
func (e *ConnectError) NothingThere() bool {
	return errors.Is(e.Err, os.ErrNotExist) || errors.Is(e.Err, syscall.ECONNREFUSED)
}

// Forbidden says that the socket exists and its permissions keep the user out.
func (e *ConnectError) Forbidden() bool { return errors.Is(e.Err, os.ErrPermission) }

// cause drops "dial unix /path: connect:", which repeats the host.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return err
}

func readError(resp *Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var msg struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &msg) == nil && msg.Message != "" {
		return &Error{resp.StatusCode, strings.TrimSpace(msg.Message)}
	}
	plain := strings.TrimSpace(string(text))
	if err != nil || plain == "" || strings.HasPrefix(plain, "<") {
		plain = fmt.Sprintf("the engine answered %s to %s", resp.Status, resp.to)
	}
	return &Error{resp.StatusCode, plain}
}

// tooNew recognises the refusal of an engine older than this client.
func tooNew(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == StatusBadRequest && strings.Contains(e.Message, "is too new")
}
