package ocirt

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// hookIO connects a hook that this package started itself: the state on stdin,
// its output collected.
type hookIO struct {
	child  [3]*os.File // stdin, stdout, stderr of the hook
	output *os.File
	copied chan struct{}
	dst    io.Writer
}

func newHookIO(stdin []byte, output io.Writer, attr *spawn.Attr) (*hookIO, error) {
	h := &hookIO{dst: output, copied: make(chan struct{})}
	// The state goes into a file, not a pipe: a hook may ignore it.
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file for the state: %w", err)
	}
	h.child[0] = os.NewFile(uintptr(fd), "state")
	if _, err := h.child[0].Write(stdin); err == nil {
		_, err = h.child[0].Seek(0, io.SeekStart)
	}
	if err == nil {
		h.output, h.child[1], err = os.Pipe()
	}
	if err != nil {
		h.child[0].Close()
		return nil, fmt.Errorf("cannot connect the hook: %w", err)
	}
	h.child[2] = h.child[1]
	attr.Keep = append(attr.Keep, int(h.child[0].Fd()), int(h.child[1].Fd()))
	go func() {
		defer close(h.copied)
		_, _ = io.Copy(h.dst, h.output)
	}()
	return h, nil
}

// wait waits for the end of the hook, killing it when ctx ends, and closes
// pidfd.
func (h *hookIO) wait(ctx context.Context, pid int, pidfd *os.File) error {
	defer pidfd.Close()
	h.child[1].Close()
	stop := context.AfterFunc(ctx, func() { _ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0) })
	defer stop()
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("cannot wait for it: %w", err)
		}
		break
	}
	// What it started may keep the pipe open; what it wrote itself is in there.
	_ = h.output.SetReadDeadline(time.Unix(1, 0))
	<-h.copied
	h.drain()
	switch {
	case status.Signaled():
		return fmt.Errorf("killed by signal %d", status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", status.ExitStatus())
	}
	return nil
}

// drain takes what is in the pipe and waits for no more, nor for the end of what
// somebody goes on writing.
func (h *hookIO) drain() {
	_ = h.output.SetReadDeadline(time.Time{})
	raw, err := h.output.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4096)
	_ = raw.Read(func(fd uintptr) bool {
		left, _ := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		for left > 0 {
			n, err := unix.Read(int(fd), buf[:min(left, len(buf))])
			if n > 0 {
				_, _ = h.dst.Write(buf[:n])
				left -= n
			} else if err != unix.EINTR {
				break
			}
		}
		return true
	})
}

func (h *hookIO) close() {
	h.child[0].Close()
	h.child[1].Close()
	h.output.Close()
	<-h.copied
}
