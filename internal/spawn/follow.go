package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// killWhen kills the child when ctx ends. After the function it returns has
// returned, it does not any more.
func (c *Child) killWhen(ctx context.Context, sock int) (halt func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	var mu sync.Mutex // guards over
	over := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			c.kill(sock)
		}
	})
	return func() {
		stop()
		mu.Lock()
		over = true
		mu.Unlock()
	}
}

var (
	errDetached = errors.New("detached")
	errGone     = errors.New("gone")
)

// follow answers the child until it is at its end.
func (p *Program) follow(c *Child, a *Attr, sock int) error {
	var buf [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(sock, buf[:], oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil && err != unix.ECONNRESET:
			return fmt.Errorf("cannot follow a new process: %w", err)
		case n <= 0:
			return p.ended(c)
		}
		switch event := buf[0]; event {
		case eventFile:
			if err := c.receive(oob[:oobn]); err != nil {
				return err
			}
			continue
		case eventOffer:
			if err := c.take(sock); err != nil {
				return err
			}
			if err := a.Barrier(c, p.offered); err != nil {
				return err
			}
			atomic.StoreInt64(&c.page.taken, 1)
			continue
		case eventReady:
			return errReady
		case eventGate: // which is open: it was closed when the child looked
		case eventDetach:
			if awaitPage(sock, &c.page.alone) {
				return errDetached
			}
			continue // it failed instead, and the socket says so
		default:
			if err := a.Barrier(c, int(event)); err != nil {
				return err
			}
		}
		if err := unix.Sendto(sock, buf[:], unix.MSG_NOSIGNAL, nil); err != nil {
			return errGone
		}
	}
}

func (c *Child) receive(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err == nil && len(msgs) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
			_ = unix.SetNonblock(fds[0], true)
			c.Files = append(c.Files, os.NewFile(uintptr(fds[0]), "from child"))
			return nil
		}
	}
	return errors.New("cannot receive a descriptor from a new process")
}

// awaitPage waits until the child stores something in a word of the page, a
// matter of microseconds; false when the socket says something first.
func awaitPage(sock int, word *int64) bool {
	fds := []unix.PollFd{{Fd: int32(sock), Events: unix.POLLIN | unix.POLLRDHUP}}
	for atomic.LoadInt64(word) == 0 {
		n, err := unix.Ppoll(fds, &unix.Timespec{Nsec: 50_000}, nil)
		if err == nil && n > 0 {
			return atomic.LoadInt64(word) != 0
		}
	}
	return true
}

// take takes the descriptor the child offers.
func (c *Child) take(sock int) error {
	if !awaitPage(sock, &c.page.offer) {
		return errGone
	}
	pidfd := int(c.PidFD.Fd())
	if c.page.pid != 0 {
		if pidfd, _ = c.second(); pidfd < 0 {
			return errGone
		}
		defer unix.Close(pidfd)
	}
	fd, err := unix.PidfdGetfd(pidfd, int(atomic.LoadInt64(&c.page.offer))-1, 0)
	if err != nil {
		return fmt.Errorf("cannot take a descriptor from a new process: %w", err)
	}
	c.Files = append(c.Files, os.NewFile(uintptr(fd), "from child"))
	return nil
}

// ended looks at a child whose end of the socket is closed: nil when it is at
// the last step.
func (p *Program) ended(c *Child) error {
	if step := p.stepOf(c.page); c.page.errno != 0 || step == nil || step.flags&flagLast == 0 {
		return errGone
	}
	return nil
}

// stepOf is the step the child says it is at; nil for one of the prelude. In a
// container that may trace others the child's word is not to be relied on.
func (p *Program) stepOf(pg *page) *step {
	i := int(atomic.LoadInt32(&pg.step))
	if i < 0 || i >= len(p.steps) {
		return nil
	}
	return &p.steps[i]
}

// settle makes c the process that runs the program, when that is not the one
// clone3 made.
func (c *Child) settle() error {
	if c.pid == 0 {
		return nil
	}
	c.PidFD.Close()
	c.PidFD = nil
	reap(c.first)
	c.Pid = int(c.pid)
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return fmt.Errorf("cannot open process %d: %w", c.Pid, err)
	}
	c.PidFD = os.NewFile(uintptr(fd), "pidfd")
	if !isChild(fd) {
		c.PidFD.Close()
		c.PidFD = nil
		return fmt.Errorf("a new process says that it is process %d, which is no child of this one", c.Pid)
	}
	return nil
}

// isChild tells whether the process is one of ours, dead or alive.
func isChild(pidfd int) bool {
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

func (c *Child) kill(sock int) {
	_ = unix.Shutdown(sock, unix.SHUT_RDWR)
	_ = unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGKILL, nil, 0)
	if pidfd, _ := c.second(); pidfd >= 0 {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Close(pidfd)
	}
}

// second opens the process that Program.Fork made; -1 when there is none, or
// when the page names one that is not ours.
func (c *Child) second() (pidfd, pid int) {
	pid = int(atomic.LoadInt64(&c.page.pid))
	if pid == 0 {
		return -1, 0
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, 0
	}
	if !isChild(fd) {
		unix.Close(fd)
		return -1, 0
	}
	return fd, pid
}

// bury reaps a child that failed and says why it did. The child has been
// killed, so this does not wait for long.
func (p *Program) bury(c *Child, err error) error {
	c.PidFD.Close()
	status := reap(c.first)
	if pidfd, pid := c.second(); pidfd >= 0 {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		status = reap(pid)
		unix.Close(pidfd)
	}
	for _, f := range c.Files {
		f.Close()
	}
	pg := c.page
	defer pg.release()
	if err != errGone {
		return err
	}
	regs := pg.regs
	doing := "prepare a new process"
	if step := p.stepOf(pg); step != nil && step.doing >= 0 {
		doing = p.doing[step.doing].String()
	}
	if pg.errno != 0 {
		return &Error{Step: int(pg.step), Doing: doing, Errno: syscall.Errno(pg.errno), Regs: func(r Reg) int64 { return regs[r] }}
	}
	return &DeathError{Doing: doing, Status: status}
}

func reap(pid int) syscall.WaitStatus {
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			return status
		}
	}
}
