package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// alive says whether a process runs: one with that PID that began at that time
// and is not dead already and waiting for its parent.
func alive(pid int, startTime uint64) bool {
	state, begun, err := stat(pid)
	return err == nil && begun == startTime && state != 'Z' && state != 'X'
}

// stat reads fields 3 and 22 of proc_pid_stat(5).
func stat(pid int) (state byte, startTime uint64, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseStat(string(b))
}

func parseStat(s string) (state byte, startTime uint64, err error) {
	// The name in field 2 may hold anything, parentheses too.
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return 0, 0, fmt.Errorf("cannot read a process status: %q", s)
	}
	f := strings.Fields(s[i+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return 0, 0, fmt.Errorf("cannot read a process status: %q", s)
	}
	startTime, err = strconv.ParseUint(f[19], 10, 64)
	return f[0][0], startTime, err
}

// open returns a pidfd of the container's process, checked to be that. The error
// is ErrNotFound when it has ended.
func (c *container) open() (*os.File, error) {
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, errs.NotFound("container not running: %s", c.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the process of container %s: %w", c.ID, err)
	}
	// Checked after it was opened: from here on the number cannot be reused.
	if !alive(c.Pid, c.StartTime) {
		unix.Close(fd)
		return nil, errs.NotFound("container not running: %s", c.ID)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// signal sends a signal to the container's process.
func (c *container) signal(sig unix.Signal) error {
	f, err := c.open()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.PidfdSendSignal(int(f.Fd()), sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return errs.NotFound("container not running: %s", c.ID)
		}
		return fmt.Errorf("cannot signal container %s: %w", c.ID, err)
	}
	return nil
}

// waitEnd waits until the container's process has ended, which need not be our
// child.
func (c *container) waitEnd(ctx context.Context) error {
	f, err := c.open()
	if err != nil {
		return nil //nolint:nilerr // it has ended
	}
	defer f.Close()
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for {
		if err := ctx.Err(); err != nil {
			return errs.Unavailable("container %s did not end: %w", c.ID, context.Cause(ctx))
		}
		n, err := unix.Poll(fds, int((50 * time.Millisecond).Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// parseSignal reads a number or a name, with or without SIG.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, errs.InvalidArgument("invalid signal %q", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	const rtMin, rtMax = 34, 64 // as libc has them
	for _, x := range []struct {
		prefix     string
		base, sign int
	}{{"SIGRTMIN", rtMin, 1}, {"SIGRTMAX", rtMax, -1}} {
		rest, ok := strings.CutPrefix(name, x.prefix)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil || n*x.sign < 0 {
				break
			}
		}
		if sig := x.base + n; sig >= rtMin && sig <= rtMax {
			return unix.Signal(sig), nil
		}
	}
	return 0, errs.InvalidArgument("invalid signal %q", s)
}
