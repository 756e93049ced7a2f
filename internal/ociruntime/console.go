package ociruntime

import (
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// sendConsole hands the master of a terminal to who listens at a Unix socket, as
// runc and crun do: one message with the descriptor.
func sendConsole(path string, master *os.File) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("cannot hand over the terminal: %w", err)
	}
	defer conn.Close()
	rights := unix.UnixRights(int(master.Fd()))
	if _, _, err := conn.WriteMsgUnix([]byte("/dev/ptmx"), rights, nil); err != nil {
		return fmt.Errorf("cannot hand over the terminal: %w", err)
	}
	return nil
}

// terminal connects the caller's terminal with that of a process in the
// foreground.
type terminal struct {
	master *os.File
	old    *term.State
	done   chan struct{} // all output was copied
}

func attach(master *os.File) (*terminal, error) {
	t := &terminal{master: master, done: make(chan struct{})}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		old, err := term.MakeRaw(int(os.Stdin.Fd()))
		if err != nil {
			return nil, fmt.Errorf("cannot prepare the terminal: %w", err)
		}
		t.old = old
		t.resize()
	}
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	go func() {
		defer close(t.done)
		_, _ = io.Copy(os.Stdout, master) // ends with EIO when the last user is gone
	}()
	return t, nil
}

// resize gives the process the size of the caller's terminal.
func (t *terminal) resize() {
	if ws, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

func (t *terminal) restore() {
	if t.old != nil {
		_ = term.Restore(int(os.Stdin.Fd()), t.old)
	}
}
