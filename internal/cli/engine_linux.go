package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

const (
	engineLog   = "/run/gantry/gantryd.log"
	engineStart = 15 * time.Second // recovery after a crash takes a while
)

// startEngine starts gantryd for root when nothing listens on the default
// socket, and waits until something does.
func (a *app) startEngine(ctx context.Context, failed *client.ConnectError) error {
	if os.Geteuid() != 0 || !failed.NothingThere() {
		return failed
	}
	path, err := findEngine()
	if err != nil {
		return failed
	}
	cmd, log, err := spawnEngine(path)
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return awaitSocket(ctx, path, log, ended)
}

// findEngine looks beside our own program and then in PATH.
func findEngine() (string, error) {
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		path := filepath.Join(filepath.Dir(exe), "gantryd")
		if info, err := os.Stat(path); err == nil && isExecutable(info) {
			return path, nil
		}
	}
	return exec.LookPath("gantryd")
}

// spawnEngine starts it in a session of its own: it must outlive the terminal.
// log is where its messages begin in the log file.
func spawnEngine(path string) (cmd *exec.Cmd, log int64, err error) {
	if err := os.MkdirAll(filepath.Dir(engineLog), 0o711); err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(engineLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		log = info.Size()
	}
	cmd = exec.Command(path)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, log, cmd.Start()
}

// awaitSocket returns when the default socket answers. A gantryd that ends is
// not the end when another one, started at the same time, is coming up.
func awaitSocket(ctx context.Context, path string, log int64, ended <-chan error) error {
	deadline := time.Now().Add(engineStart)
	socket := strings.TrimPrefix(DefaultHost, "unix://")
	var failure error
	for pause := time.Millisecond; time.Now().Before(deadline); pause = min(2*pause, 20*time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			return c.Close()
		}
		select {
		case err := <-ended:
			failure = fmt.Errorf("gantryd ended while it was starting (%w)%s", orClean(err), lastLines(log))
			deadline = earlier(deadline, time.Now().Add(time.Second))
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if failure != nil {
		return failure
	}
	return fmt.Errorf("started %s, but nothing answers on %s after %v%s", path, socket, engineStart, lastLines(log))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func orClean(err error) error {
	if err == nil {
		return errors.New("without an error")
	}
	return err
}

// lastLines is what the engine said since we started it, shortened.
func lastLines(from int64) string {
	text, err := os.ReadFile(engineLog)
	if err != nil || int64(len(text)) <= from {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text[from:])), "\n")
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	return ":\n" + strings.Join(lines, "\n")
}
