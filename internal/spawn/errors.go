package spawn

import (
	"fmt"
	"syscall"
)

// Error is a step that failed in the child.
type Error struct {
	Step  int    // index in the program; negative before it
	Doing string // what the step was for: "mount proc on /proc"
	Errno syscall.Errno
	Regs  func(Reg) int64 // the registers as they were
}

func (e *Error) Error() string { return fmt.Sprintf("cannot %s: %v", e.Doing, e.Errno) }

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

// DeathError is a child that ended in the middle of the program without having
// failed: somebody, for example the OOM killer, killed it.
type DeathError struct {
	Doing  string
	Status syscall.WaitStatus
}

func (e *DeathError) Error() string {
	if e.Status.Signaled() {
		return fmt.Sprintf("cannot %s: killed by signal %d (%v)", e.Doing, e.Status.Signal(), e.Status.Signal())
	}
	return fmt.Sprintf("cannot %s: the process ended with status %d", e.Doing, e.Status.ExitStatus())
}
