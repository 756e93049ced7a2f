// Command gantry-init is the first process of a container run with --init: it
// passes signals on to its one child, reaps what is orphaned to it, and ends as
// the child ends. It is a program of its own so that a container that asks for
// an init gets nothing else of ours with it.
//
// Usage: gantry-init [--] COMMAND [ARG...]
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fail(1, errors.New("usage: gantry-init [--] COMMAND [ARG...]"))
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	child, err := start(args)
	if err != nil {
		fail(startCode(err), err)
	}
	for sig := range signals {
		switch sig {
		case syscall.SIGCHLD:
			if code, ended := reap(child); ended {
				os.Exit(code)
			}
		case syscall.SIGURG: // the Go runtime's own
		case syscall.SIGTTIN, syscall.SIGTTOU: // the terminal is the child's
		default:
			syscall.Kill(child, sig.(syscall.Signal))
		}
	}
}

// start runs the command in a process group of its own, in the foreground of
// the terminal where there is one.
func start(args []string) (pid int, err error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	_, ttyErr := syscall.Open("/dev/tty", syscall.O_RDONLY|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	p, err := os.StartProcess(path, args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Foreground: ttyErr == nil && isTerminal(), Ctty: 0},
	})
	if err != nil {
		return 0, err
	}
	return p.Pid, nil
}

func isTerminal() bool {
	info, err := os.Stdin.Stat()
	return err == nil && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice|fs.ModeCharDevice && info.Name() != "null"
}

// reap collects every process that has ended, and tells whether the child did.
func reap(child int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == child {
			ended, code = true, status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}

func startCode(err error) int {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return 127
	}
	return 126
}

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "gantry-init:", err)
	os.Exit(code)
}
