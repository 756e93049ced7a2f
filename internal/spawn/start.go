package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attr says how to fork.
type Attr struct {
	// Flags are CLONE_NEW* flags for clone3.
	Flags uint64
	// Cgroup is a directory of cgroup v2 to be born in; nil for the parent's.
	Cgroup *os.File
	// Keep lists the descriptors the child keeps; it closes all others before its
	// first step. They have the same numbers in the child.
	Keep []int
	// Floor is the lowest number a descriptor of this package may have in the
	// child: the ones below are the caller's to assign.
	Floor int
	// Barrier is called, in the parent, when the child waits at a barrier. When
	// it returns an error the child is killed and Start returns that error.
	Barrier func(c *Child, event int) error
}

// Child is a process that Start made.
type Child struct {
	// Pid is the process that runs the program: while it runs, the one clone3
	// made until Program.Fork has replaced it.
	Pid   int
	PidFD *os.File
	// Files are the descriptors the child sent, in order. Those that came with
	// SendFD are non-blocking, so that a read of them can be interrupted by Close.
	Files []*os.File

	page  *page // nil when Start has returned
	regs  []int64
	pid   int64 // of a second process, made by Program.Fork
	first int
}

// Reg is the content of a register.
func (c *Child) Reg(r Reg) int64 {
	if c.page != nil {
		return c.page.regs[r]
	}
	return c.regs[r]
}

// Current is the pid of the process that runs the program at this moment; for
// use at barriers.
func (c *Child) Current() int {
	if pid := c.page.pid; pid != 0 {
		return int(pid)
	}
	return c.first
}

// Error is a step that failed in the child.
type Error struct {
	Step  int    // index in the program; negative before it
	Doing string // what the step was for: "mount proc on /proc"
	Errno syscall.Errno
	Regs  func(Reg) int64 // the registers as they were
}

func (e *Error) Error() string { return fmt.Sprintf("cannot %s: %v", e.Doing, e.Errno) }

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

// DeathError is a child that ended in the middle of the program without having
// failed: somebody, for example the OOM killer, killed it.
type DeathError struct {
	Doing  string
	Status syscall.WaitStatus
}

func (e *DeathError) Error() string {
	if e.Status.Signaled() {
		return fmt.Sprintf("cannot %s: killed by signal %d (%v)", e.Doing, e.Status.Signal(), e.Status.Signal())
	}
	return fmt.Sprintf("cannot %s: the process ended with status %d", e.Doing, e.Status.ExitStatus())
}

// cloneArgs is struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls uint64
	setTid, setTidSize, cgroup                                           uint64
}

//go:linkname runtime_BeforeFork syscall.runtime_BeforeFork
func runtime_BeforeFork()

//go:linkname runtime_AfterFork syscall.runtime_AfterFork
func runtime_AfterFork()

//go:linkname runtime_AfterForkInChild syscall.runtime_AfterForkInChild
func runtime_AfterForkInChild()

// clone3 forks; the child runs both programs and does not return.
//
//go:noinline
//go:norace
func clone3(args *cloneArgs, prelude, main *code) (pid uintptr, errno syscall.Errno) {
	runtime_BeforeFork()
	pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		runtime_AfterFork()
		return pid, errno
	}
	runtime_AfterForkInChild()
	run(prelude)
	run(main)
	exit(0)
	return 0, 0
}

// preludeBase is what page.step starts from in the steps before the program.
const preludeBase = -1 << 16

// Start forks a child that runs the program and returns once the child has
// called execve, has passed Detach or has failed. The program is used up.
//
// The caller is the parent of the process that results and has to reap it, but
// must not wait for "any child" while Start runs. ctx cancels: the child is
// killed and reaped.
func (p *Program) Start(ctx context.Context, a *Attr) (*Child, error) {
	defer p.mem.release()
	if p.nregs > maxRegs {
		return nil, fmt.Errorf("cannot start a process: its program needs %d registers, more than %d", p.nregs, maxRegs)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.link()
	ours, theirs, err := channel(a.Floor)
	if err != nil {
		return nil, fmt.Errorf("cannot make a socket for a new process: %w", err)
	}
	defer unix.Close(ours)
	pg, err := newPage()
	if err != nil {
		unix.Close(theirs)
		return nil, fmt.Errorf("cannot map memory for a new process: %w", err)
	}
	c, err := p.fork(a, pg, theirs)
	unix.Close(theirs)
	if err != nil {
		pg.release()
		return nil, err
	}
	halt := c.killWhen(ctx, ours)
	err = p.follow(c, a, ours)
	halt()
	if err == nil || err == errDetached {
		c.regs, c.pid, c.page = slices.Clone(pg.regs[:p.nregs]), pg.pid, nil
		if err == nil {
			pg.release()
		} else {
			pg.unmap() // the child goes on writing to it: it may not be used again
		}
		return c, c.settle()
	}
	c.kill(ours)
	err = p.bury(c, err)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

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

func (p *Program) fork(a *Attr, pg *page, sock int) (*Child, error) {
	pre := prelude(append(slices.Clone(a.Keep), sock))
	pre.link()
	defer pre.mem.release()
	mainCode := &code{steps: uintptr(unsafe.Pointer(unsafe.SliceData(p.steps))), n: len(p.steps), page: pg, sock: uintptr(sock)}
	preCode := &code{steps: uintptr(unsafe.Pointer(unsafe.SliceData(pre.steps))), n: len(pre.steps), base: preludeBase, page: pg}
	pidfd := new(int32)
	args := &cloneArgs{
		flags:      a.Flags | unix.CLONE_PIDFD,
		pidfd:      uint64(uintptr(unsafe.Pointer(pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if a.Cgroup != nil {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(a.Cgroup.Fd())
	}
	// The lock keeps descriptors that are not close-on-exec yet, somewhere else
	// in this program, out of the child.
	syscall.ForkLock.Lock()
	pid, errno := clone3(args, preCode, mainCode)
	syscall.ForkLock.Unlock()
	keepAlive(p, pre, mainCode, preCode, pidfd)
	if errno != 0 {
		return nil, cloneError(errno, a)
	}
	return &Child{Pid: int(pid), PidFD: os.NewFile(uintptr(*pidfd), "pidfd"), page: pg, first: int(pid)}, nil
}

//go:noinline
func keepAlive(...any) {}

func cloneError(errno syscall.Errno, a *Attr) error {
	doing := "make a process"
	if a.Flags != 0 {
		doing += " with new namespaces"
	}
	if a.Cgroup != nil {
		doing += " in its cgroup"
	}
	return &Error{Step: preludeBase, Doing: doing, Errno: errno}
}

// prelude makes the child a clean process: nothing of the parent's signal state,
// its umask or its descriptors is left, and no other process can look into it.
func prelude(keep []int) *Program {
	p := &Program{steps: make([]step, 0, 32)}
	p.Doing("prepare a new process")
	act := p.Space(64) // struct sigaction, all zero: SIG_DFL
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTERM, unix.SIGCHLD, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH} {
		p.Sys(unix.SYS_RT_SIGACTION, Int(int(sig)), act, Int(0), Int(8))
	}
	p.Sys(unix.SYS_RT_SIGPROCMASK, Int(unix.SIG_SETMASK), act, Int(0), Int(8))
	p.Sys(unix.SYS_PRCTL, Int(unix.PR_SET_DUMPABLE), Int(0), Int(0), Int(0), Int(0))
	p.Sys(unix.SYS_UMASK, Int(0))
	slices.Sort(keep)
	next := 0
	for _, fd := range slices.Compact(keep) {
		if fd > next {
			p.Sys(unix.SYS_CLOSE_RANGE, Int(next), Int(fd-1), Int(0))
		}
		next = fd + 1
	}
	p.Sys(unix.SYS_CLOSE_RANGE, Int(next), Uint(1<<32-1), Int(0))
	return p
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
		fd, err := unix.PidfdOpen(int(c.page.pid), 0)
		if err != nil {
			return errGone
		}
		defer unix.Close(fd)
		pidfd = fd
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
	if c.page.errno != 0 || c.page.step < 0 || p.steps[c.page.step].flags&flagLast == 0 {
		return errGone
	}
	return nil
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
	return nil
}

func (c *Child) kill(sock int) {
	_ = unix.Shutdown(sock, unix.SHUT_RDWR)
	_ = unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGKILL, nil, 0)
	if pid := c.page.pid; pid != 0 {
		_ = unix.Kill(int(pid), unix.SIGKILL)
	}
}

// bury reaps a child that failed and says why it did. The child has been
// killed, so this does not wait for long.
func (p *Program) bury(c *Child, err error) error {
	c.PidFD.Close()
	status := reap(c.first)
	if pid := c.page.pid; pid != 0 {
		_ = unix.Kill(int(pid), unix.SIGKILL)
		status = reap(int(pid))
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
	if pg.step >= 0 {
		if d := p.steps[pg.step].doing; d >= 0 {
			doing = p.doing[d].String()
		}
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

// channel makes the socket; the child's end has a number of at least floor.
func channel(floor int) (ours, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	ours, theirs = fds[0], fds[1]
	if theirs < floor {
		moved, err := unix.FcntlInt(uintptr(theirs), unix.F_DUPFD_CLOEXEC, floor)
		unix.Close(theirs)
		if err != nil {
			unix.Close(ours)
			return -1, -1, err
		}
		theirs = moved
	}
	return ours, theirs, nil
}

// pages are the shared pages that are free.
var pages struct {
	sync.Mutex
	free []*page
}

func newPage() (*page, error) {
	pages.Lock()
	defer pages.Unlock()
	if n := len(pages.free); n > 0 {
		pg := pages.free[n-1]
		pages.free = pages.free[:n-1]
		return pg, nil
	}
	mem, err := unix.MmapPtr(-1, 0, nil, unsafe.Sizeof(page{}), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	return (*page)(mem), err
}

// release gives back a page no child maps any more.
func (pg *page) release() {
	*pg = page{}
	pages.Lock()
	pages.free = append(pages.free, pg)
	pages.Unlock()
}

func (pg *page) unmap() { _ = unix.MunmapPtr(unsafe.Pointer(pg), unsafe.Sizeof(*pg)) }
