package ocirt

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// StepError is a step of the program that failed. It reads as a sentence:
// "cannot mount proc on /proc: permission denied".
type StepError struct {
	Step  string // "mount proc on /proc"
	Errno syscall.Errno
	Hint  string // what is probably the reason; may be ""
}

func (e *StepError) Error() string {
	s := fmt.Sprintf("cannot %s: %v", e.Step, e.Errno)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap gives the errno, so that errors.Is(err, fs.ErrPermission) works.
func (e *StepError) Unwrap() error { return e.Errno }

// Classes of ExecError, for errors.Is.
var (
	// ErrNotFound: there is no such program. Shells and docker exit with 127.
	ErrNotFound = errors.New("executable file not found")
	// ErrNotExecutable: it is there and cannot be executed. They exit with 126.
	ErrNotExecutable = errors.New("file is not executable")
)

// ExecError says why the program of a container could not be executed. It is
// ErrNotFound or ErrNotExecutable.
type ExecError struct {
	Path  string // as the specification names it: Process.Args[0]
	Errno syscall.Errno
	// Searched says that Path has no slash and was looked for in $PATH.
	Searched bool
	// Exists and Dir say what is at Path.
	Exists, Dir bool
}

func (e *ExecError) Error() string {
	switch {
	case e.Errno == unix.ENOENT && e.Searched:
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.Path)
	case e.Errno == unix.ENOENT && e.Exists:
		return fmt.Sprintf("exec %s: no such file or directory (its interpreter or loader is missing)", e.Path)
	case e.Errno == unix.ENOENT || e.Errno == unix.ENOTDIR:
		return fmt.Sprintf("exec: %q: stat %s: %v", e.Path, e.Path, e.Errno)
	case e.Errno == unix.EACCES && e.Dir:
		return fmt.Sprintf("exec: %q: is a directory", e.Path)
	case e.Errno == unix.ENOEXEC:
		return fmt.Sprintf("exec %s: exec format error (it is for another kind of processor, or a script without #!)", e.Path)
	}
	return fmt.Sprintf("exec: %q: %v", e.Path, e.Errno)
}

// Is makes the classes work.
func (e *ExecError) Is(target error) bool {
	missing := e.Errno == unix.ENOENT || e.Errno == unix.ENOTDIR && !e.Exists
	return target == ErrNotFound && missing || target == ErrNotExecutable && !missing
}

// Unwrap gives the errno.
func (e *ExecError) Unwrap() error { return e.Errno }

// explain turns an error of package spawn into one of this package.
func (b *builder) explain(err error) error {
	if dead, ok := err.(*spawn.DeathError); ok && dead.Status.Signaled() && dead.Status.Signal() == unix.SIGKILL {
		return fmt.Errorf("%w; is the memory limit too low?", err)
	}
	// Not errors.As: what failed for another program (a hook) is not ours.
	e, ok := err.(*spawn.Error)
	if !ok {
		return err
	}
	if b.execFrom > 0 && e.Step >= b.execFrom && e.Step < b.execTo {
		mode := e.Regs(b.execMode)
		return &ExecError{
			Path:     b.process.Args[0],
			Errno:    e.Errno,
			Searched: b.searched,
			Exists:   mode != 0,
			Dir:      mode&unix.S_IFMT == unix.S_IFDIR,
		}
	}
	return &StepError{Step: e.Doing, Errno: e.Errno, Hint: b.hint(e)}
}

func (b *builder) hint(e *spawn.Error) string {
	switch {
	case e.Errno == unix.EINVAL && b.ns.has(unix.CLONE_NEWNS) && strings.HasPrefix(e.Doing, "mount /"): // a bind
		return "is one of them a directory and the other a file?"
	case e.Errno == unix.EPERM && strings.HasPrefix(e.Doing, "set rlimit"):
		return "raising a limit needs CAP_SYS_RESOURCE"
	case e.Errno == unix.EINVAL && !b.ns.has(unix.CLONE_NEWNS) && strings.HasPrefix(e.Doing, "mount "):
		return "without a mount namespace of its own a container needs Linux 6.15"
	case e.Errno == unix.ELOOP && (strings.HasSuffix(e.Doing, " on /proc") || strings.HasSuffix(e.Doing, " on /sys")):
		return "it has to be a directory, not a symlink"
	case e.Errno == unix.EDQUOT && strings.Contains(e.Doing, "keyring"):
		return "the user has too many keys, see sysctl kernel.keys.maxkeys"
	case e.Errno == unix.EXDEV && e.Step >= 0:
		return "the path leads out of the container's root"
	}
	return ""
}
