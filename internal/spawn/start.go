package spawn

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/timerslack"
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
	// Meanwhile, when set, is called in the parent while the child is at work. At a
	// gate the child waits for it. When it returns an error the child is killed and
	// Start returns that error.
	Meanwhile func() error
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

// cloneArgs is struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls uint64
	setTid, setTidSize, cgroup                                           uint64
}

//go:linkname runtime_BeforeFork syscall.runtime_BeforeFork
func runtime_BeforeFork()

//go:linkname runtime_AfterFork syscall.runtime_AfterFork
func runtime_AfterFork()

// work is all the child does, prepared outside the heap. A spare reads the second
// half when it was woken; of any other child that is empty.
type work struct{ prelude, main, receive, rest code }

// clone3 forks. The child calls the function at the address entry with work, on
// the stack that args name, and does not return.
//
//go:noescape
func clone3(args *cloneArgs, size, entry, work uintptr) (pid uintptr, errno syscall.Errno)

// child is where the child begins: without a goroutine, a heap and a stack that
// could grow. All signals are blocked; the prelude undoes that, once none has a
// handler.
//
//go:nosplit
//go:norace
func child(w *work) {
	run(&w.prelude)
	run(&w.main)
	run(&w.receive)
	run(&w.rest)
	exit(0)
}

// forkChild is clone3 as the runtime has to see it.
//
//go:noinline
//go:norace
func forkChild(args *cloneArgs, entry, work uintptr) (pid uintptr, errno syscall.Errno) {
	runtime_BeforeFork()
	pid, errno = clone3(args, unsafe.Sizeof(*args), entry, work)
	runtime_AfterFork()
	return pid, errno
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
	defer p.release()
	if p.nregs > maxRegs {
		return nil, fmt.Errorf("cannot start a process: its program needs %d registers, more than %d", p.nregs, maxRegs)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.link()
	if p.spare != nil {
		return p.startIn(ctx, p.spare, a)
	}
	c, ours, err := p.begin(a)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ours)
	return p.see(ctx, c, a, ours)
}

// begin forks a child that runs the program. ours is this end of its socket.
func (p *Program) begin(a *Attr) (c *Child, ours int, err error) {
	ours, theirs, err := channel(a.Floor)
	if err != nil {
		return nil, -1, fmt.Errorf("cannot make a socket for a new process: %w", err)
	}
	defer unix.Close(theirs)
	pg, err := newPage()
	if err != nil {
		unix.Close(ours)
		return nil, -1, fmt.Errorf("cannot map memory for a new process: %w", err)
	}
	if c, err = p.fork(a, pg, theirs); err != nil {
		unix.Close(ours)
		pg.release()
	}
	return c, ours, err
}

// see sees a child to the end of the program.
func (p *Program) see(ctx context.Context, c *Child, a *Attr, ours int) (*Child, error) {
	halt := c.killWhen(ctx, ours)
	var err error
	if a.Meanwhile != nil {
		err = a.Meanwhile()
	}
	if err == nil {
		atomic.StoreInt64(&c.page.open, 1)
		err = p.follow(c, a, ours)
	}
	halt()
	if err == nil || err == errDetached {
		pg := c.page
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

func (p *Program) fork(a *Attr, pg *page, sock int) (*Child, error) {
	pre := prelude(append(slices.Clone(a.Keep), sock))
	pre.link()
	defer pre.release()
	todo := p.mem.alloc(int(unsafe.Sizeof(work{})))
	*(*work)(pointer(todo)) = work{
		prelude: code{steps: pre.image(), n: len(pre.steps), base: preludeBase, page: pg},
		main:    code{steps: p.image(), n: len(p.steps), base: p.base, page: pg, sock: uintptr(sock)},
	}
	p.todo = todo
	// Not a variable: its address is a number to the compiler, and the stack may
	// move before the kernel writes there.
	pidfd := (*int32)(pointer(p.mem.alloc(8)))
	args := &cloneArgs{
		flags:      a.Flags | unix.CLONE_PIDFD,
		pidfd:      uint64(uintptr(unsafe.Pointer(pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
		stack:      uint64(p.mem.scratch(stackSize)),
		stackSize:  stackSize - spillSize,
	}
	if err := p.planForget(); err != nil {
		return nil, fmt.Errorf("cannot plan what a new process forgets: %w", err)
	}
	if a.Cgroup != nil {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(a.Cgroup.Fd())
	}
	// The lock keeps descriptors that are not close-on-exec yet, somewhere else
	// in this program, out of the child.
	var pid uintptr
	var errno syscall.Errno
	timerslack.Strictly(func() {
		syscall.ForkLock.Lock()
		keepHeap()
		takeBack := p.mem.lend()
		takePrelude := pre.mem.lend()
		pid, errno = forkChild(args, reflect.ValueOf(child).Pointer(), todo)
		takePrelude()
		takeBack()
		syscall.ForkLock.Unlock()
	})
	if errno != 0 {
		return nil, cloneError(errno, a)
	}
	return &Child{Pid: int(pid), PidFD: os.NewFile(uintptr(*pidfd), "pidfd"), page: pg, first: int(pid)}, nil
}

// stackSize is what the child has for the interpreter, which is nosplit all the
// way: the linker bounds it to a few hundred bytes.
const stackSize = 8 << 10

// spillSize stays free above the stack: a Go function may store the arguments it
// was given in registers in the frame of its caller, and the child's has none.
const spillSize = 128

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
	p := &Program{}
	p.Doing("prepare a new process")
	act := p.Space(64) // struct sigaction, all zero: SIG_DFL
	// All of them: what started us may have had any signal ignored, and an
	// ignored signal stays so across execve.
	for sig := 1; sig <= 64; sig++ {
		if sig == int(unix.SIGKILL) || sig == int(unix.SIGSTOP) {
			continue
		}
		p.Sys(unix.SYS_RT_SIGACTION, Int(sig), act, Int(0), Int(8))
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
