package shim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/timerslack"
)

// Ensure connects to the shim of execRoot and starts binary (a gantry-shim) as
// one when none answers. The new shim leaves the caller's session and cgroup; it
// is the caller's child until the caller dies.
func Ensure(ctx context.Context, execRoot, binary string) (*Client, error) {
	c := &Client{execRoot: execRoot, binary: binary}
	l, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.release(l)
	return c, nil
}

// Renew upgrades the shim to the file that the binary given to Ensure is now, if
// it runs another one. It reports whether it did; after an error the old one
// goes on.
func (c *Client) Renew(ctx context.Context) (renewed bool, err error) {
	wanted, err := os.Stat(c.binary)
	if err != nil {
		return false, errs.System("cannot upgrade the shim: %w", err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return false, err
	}
	// By what it is: a package replaces the file under its name.
	if running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", info.Pid)); err != nil || os.SameFile(wanted, running) {
		return false, nil
	}
	return true, c.Upgrade(ctx, c.binary)
}

// start runs a shim and returns when it, or one that was faster, listens.
func start(ctx context.Context, execRoot, binary string) error {
	if err := os.MkdirAll(execRoot, 0o711); err != nil {
		return errs.System("cannot make the exec root: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(execRoot, "shim-start.lock"))
	if err != nil {
		return errs.System("cannot start the shim: %w", err)
	}
	defer unlock()
	for range 5 {
		if c, err := Dial(ctx, execRoot); err == nil {
			return c.Close()
		}
		if err = launch(ctx, execRoot, binary); !errors.Is(err, errServed) {
			return err
		}
	}
	return err
}

// errServed means that there is a shim already.
var errServed = errs.Unavailable("cannot start the shim: another one serves the exec root")

// launch executes binary as a shim and waits for what becomes of that.
func launch(ctx context.Context, execRoot, binary string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return errs.System("cannot start the shim: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(binary, "io", "--exec-root", execRoot)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), readyEnv + "=3"}
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	timerslack.Strictly(func() { err = cmd.Start() })
	w.Close()
	if err != nil {
		return errs.System("cannot start the shim: %w", err)
	}
	go cmd.Wait()
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	line, err := bufio.NewReader(r).ReadString('\n')
	switch {
	case line == readyLine:
		return nil
	case line == servedLine:
		return errServed
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && line == "":
		return errs.Unavailable("cannot start the shim: %s ended at once; its log is %s", binary, logPath(execRoot))
	}
	return errs.Unavailable("cannot start the shim: %s", strings.TrimSpace(line))
}

const (
	readyEnv  = "GANTRY_SHIM_READY" // number of the descriptor to write readyLine to
	readyLine = "ready\n"
	// servedLine is said by an io that is one too many. That there was another is
	// no failure: its starter may have died while it began.
	servedLine = "served\n"
)

func logPath(execRoot string) string { return filepath.Join(execRoot, "shim.log") }

// lockFile takes a lock that ends with the process.
func lockFile(ctx context.Context, path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		for {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
			if !errors.Is(err, unix.EINTR) {
				done <- err
				return
			}
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			f.Close()
			return nil, err
		}
		return f.Close, nil
	case <-ctx.Done():
		go func() { <-done; f.Close() }()
		return nil, ctx.Err()
	}
}
