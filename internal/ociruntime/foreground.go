package ociruntime

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt"
)

// watcher collects signals from before a process exists, so that none is lost.
type watcher chan os.Signal

func watchSignals() watcher {
	w := make(watcher, 64)
	signal.Notify(w)
	return w
}

// wait stays with a process in the foreground: it passes signals on, keeps the
// terminal and returns the exit code, 128+n for a signal n.
func (w watcher) wait(p *ocirt.Process) (int, error) {
	defer signal.Stop(w)
	var t *terminal
	if p.Console != nil {
		var err error
		if t, err = attach(p.Console); err != nil {
			return 0, err
		}
		defer t.restore()
	}
	type end struct {
		status unix.WaitStatus
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		var e end
		for {
			_, e.err = unix.Wait4(p.Pid, &e.status, 0, nil)
			if !errors.Is(e.err, unix.EINTR) {
				break
			}
		}
		ended <- e
	}()
	for {
		select {
		case s := <-w:
			forward(s.(syscall.Signal), p, t)
		case e := <-ended:
			if t != nil {
				// A process that got away may hold the terminal open.
				select {
				case <-t.done:
				case <-time.After(100 * time.Millisecond):
				}
			}
			if e.err != nil {
				return 0, e.err
			}
			if e.status.Signaled() {
				return 128 + int(e.status.Signal()), nil
			}
			return e.status.ExitStatus(), nil
		}
	}
}

func forward(sig syscall.Signal, p *ocirt.Process, t *terminal) {
	switch sig {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE: // ours
	case unix.SIGWINCH:
		if t != nil {
			t.resize()
		}
	default:
		_ = unix.PidfdSendSignal(int(p.PidFD.Fd()), sig, nil, 0)
	}
}
