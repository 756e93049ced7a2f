//go:build unix

package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalName is empty for signals that are about this process only: its
// children, its pipes, its terminal's size, and Go's preemption.
func signalName(s os.Signal) string {
	sig, ok := s.(syscall.Signal)
	if !ok {
		return ""
	}
	switch sig {
	case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH:
		return ""
	}
	return unix.SignalName(sig)
}

// raise does to us what a signal does that nobody has taken over.
func raise(s os.Signal) { _ = unix.Kill(os.Getpid(), s.(syscall.Signal)) }

// commonSignals are those shells, service managers and people send.
func commonSignals() []os.Signal {
	return []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGCONT}
}

// sizeChanges tells when the terminal's size may have changed.
func sizeChanges(ctx context.Context) <-chan os.Signal {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGWINCH)
	context.AfterFunc(ctx, func() {
		signal.Stop(ch)
		close(ch)
	})
	return ch
}
