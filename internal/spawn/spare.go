package spawn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Spare is a child that was forked before it was known what for. It has its
// namespaces, has run a first program, and waits for a second, which Start gives
// it instead of forking: what a fork costs was paid when nobody waited.
//
// It has nothing of its parent but code, one socket and the memory the second
// program will be in, and it ends when the parent does. Its methods are called by
// one goroutine at a time.
type Spare struct {
	child *Child
	flags uint64 // it was forked with
	ours  int    // its socket; -1 when it was used or discarded
	mem   chunk
	todo  uintptr // its work
}

// ErrNoSpare is returned by Start of a program that cannot be run by its spare,
// or whose spare is gone. Nothing has happened then but that the spare was
// discarded, and the same can be started without one.
var ErrNoSpare = errors.New("the process made ahead cannot be used")

// SpareName is what a spare calls itself until it executes something.
const SpareName = "gantry-spare"

// SpareKept is the first of a hundred descriptors that a spare's first program may
// keep for its second.
const SpareKept = 600

const (
	spareMem = 192 << 10 // bytes
	// spareTold is what the programs of most spares take, but for what only the
	// child writes to.
	spareTold = 80 << 10
	// spareSock is the least number of a spare's socket. Below SpareKept there is
	// room for the descriptors it gets: their numbers are the lowest, and then
	// their own.
	spareSock = SpareKept + 100
	// spareBase is what page.step starts from in a spare's first program.
	spareBase = -1 << 20
)

// NewSpare forks a child with Flags, Keep and Barrier of a, which build may still
// change, and has it run the steps that build adds, after which it has no
// descriptors but those from SpareKept on. The caller owns it, is its parent, and
// must not wait for "any child" before Discard or Start.
func NewSpare(ctx context.Context, a *Attr, build func(*Program) error) (_ *Spare, err error) {
	mem, err := newSpareMem()
	if err != nil {
		return nil, fmt.Errorf("cannot map memory for a spare process: %w", err)
	}
	s := &Spare{mem: chunk{block: mem, shared: true}, ours: -1}
	defer func() {
		if err != nil {
			s.unmap()
		}
	}()
	p := &Program{mem: arena{blocks: []chunk{s.mem}}, base: spareBase}
	defer p.release()
	if err := build(p); err != nil {
		return nil, err
	}
	s.flags = a.Flags
	awaitProgram(p)
	if len(a.Keep) > 0 && slices.Max(a.Keep) >= SpareKept {
		return nil, fmt.Errorf("cannot make a spare process with descriptor %d", slices.Max(a.Keep))
	}
	if err := p.fits(); err != nil {
		return nil, err
	}
	p.link()
	first := *a
	first.Floor = spareSock
	if s.child, s.ours, err = p.begin(&first); err != nil {
		return nil, err
	}
	// Later children have no business with what this one is told.
	s.mem.advise(unix.MADV_DONTFORK)
	halt := s.child.killWhen(ctx, s.ours)
	err = p.follow(s.child, a, s.ours)
	halt()
	s.mem, s.todo = p.mem.blocks[0], p.todo
	if err != errReady {
		s.child.kill(s.ours)
		err = p.bury(s.child, err)
		unix.Close(s.ours)
		return nil, err
	}
	return s, nil
}

var errReady = errors.New("ready")

// awaitProgram ends a spare's first program: the child gives up what it has of
// its parent's memory, says that it is ready and waits for a message, the
// descriptors of the second program in it. The end of the socket is its own.
func awaitProgram(p *Program) {
	hdr := newFDMessages(&p.mem, maxPassed)
	p.Doing("wait", "for a program")
	p.Sys(unix.SYS_PRCTL, Int(unix.PR_SET_NAME), p.Str(SpareName))
	p.Sys(unix.SYS_CLOSE_RANGE, Int(0), Int(SpareKept-1), Int(0))
	p.Forget()
	p.Sys(opAnnounce, p.Bytes([]byte{eventReady}))
	got := p.NewReg()
	p.Sys(unix.SYS_RECVMSG, Arg{v: sockArg}, Arg{v: hdr}, Int(unix.MSG_CMSG_CLOEXEC)).Save(got)
	p.Sys(opEqual, Val(got), Int(1))
}

// maxPassed is how many descriptors a message can carry: SCM_MAX_FD.
const maxPassed = 253

// fits reports whether the program is all in the memory of its spare.
func (p *Program) fits() error {
	if len(p.mem.blocks) != 1 {
		return ErrNoSpare
	}
	return nil
}

// In makes a program that Start has s run. It is s's only one.
func (s *Spare) In() *Program { return &Program{mem: arena{blocks: []chunk{s.mem}}, spare: s} }

// Discard ends a spare that was not used. It does nothing to one that was, and to
// nil.
func (s *Spare) Discard() {
	if s == nil || s.ours < 0 {
		return
	}
	s.child.kill(s.ours)
	s.child.PidFD.Close()
	reap(s.child.first)
	s.child.page.release()
	unix.Close(s.ours)
	s.ours = -1
	s.unmap()
}

// Used reports whether there is no process any more that waits.
func (s *Spare) Used() bool { return s.ours < 0 }

// Pid is the process.
func (s *Spare) Pid() int { return s.child.first }

func (s *Spare) unmap() { _ = unix.MunmapPtr(pointer(s.mem.addr), s.mem.size) }

// startIn is Start in a spare.
func (p *Program) startIn(ctx context.Context, s *Spare, a *Attr) (*Child, error) {
	keep := slices.Clone(a.Keep)
	slices.Sort(keep)
	keep = slices.Compact(keep)
	if !p.runsIn(s, a, keep) || p.tell(s, keep) != nil || s.wake(keep) != nil {
		s.Discard()
		return nil, ErrNoSpare
	}
	c, ours := s.child, s.ours
	s.ours = -1
	defer unix.Close(ours)
	mem := p.mem.blocks[0]
	child, err := p.see(ctx, c, a, ours)
	if err == nil {
		mem.reuse() // the child has executed something, and has it no more
	} else {
		s.unmap()
	}
	return child, err
}

// runsIn says whether a spare can run the program, with these descriptors.
func (p *Program) runsIn(s *Spare, a *Attr, keep []int) bool {
	return s.ours >= 0 && a.Flags == s.flags && a.Cgroup == nil && a.Floor <= SpareKept && !p.detaches && p.forget == 0 &&
		len(keep) <= maxPassed && (len(keep) == 0 || keep[len(keep)-1] < SpareKept)
}

// tell puts the program where the spare finds it when it wakes.
func (p *Program) tell(s *Spare, keep []int) error {
	pg := s.child.page
	w := (*work)(pointer(s.todo))
	w.receive = p.renumber(keep)
	w.receive.page = pg
	w.rest = code{steps: p.image(), n: len(p.steps), page: pg, sock: w.main.sock}
	pg.regs = [maxRegs]int64{}
	return p.fits()
}

// wake sends a spare the descriptors of its second program, and with them word
// that there is one.
func (s *Spare) wake(fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		_, err := unix.SendmsgN(s.ours, []byte{0}, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// renumber gives a spare's descriptors, which came as the lowest numbers there
// are, the numbers they have in the parent. They are sorted, so that each has one
// that is not lower than what it came as: from the last on none is in the way.
func (p *Program) renumber(fds []int) code {
	q := &Program{mem: p.mem}
	defer q.dropSteps()
	for came, fd := range slices.Backward(fds) {
		if came == fd {
			continue
		}
		q.Sys(unix.SYS_DUP3, Int(came), Int(fd), Int(unix.O_CLOEXEC))
		if _, used := slices.BinarySearch(fds, came); !used {
			q.Sys(unix.SYS_CLOSE, Int(came))
		}
	}
	q.link()
	c := code{steps: q.image(), n: len(q.steps), base: preludeBase}
	p.mem = q.mem
	return c
}

// spareMems are memories of spares that were started, for the next ones: their
// pages are there already.
var spareMems struct {
	sync.Mutex
	idle []block // zero
}

const maxSpareMems = 2

// newSpareMem returns zero memory that a child forked from now on shares.
func newSpareMem() (block, error) {
	spareMems.Lock()
	defer spareMems.Unlock()
	if last := len(spareMems.idle) - 1; last >= 0 {
		b := spareMems.idle[last]
		spareMems.idle = spareMems.idle[:last]
		b.advise(unix.MADV_DOFORK)
		return b, nil
	}
	mem, err := unix.MmapPtr(-1, 0, nil, spareMem, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return block{}, err
	}
	// A page that is there already costs the start less.
	_ = unix.Madvise(unsafe.Slice((*byte)(mem), spareTold), unix.MADV_POPULATE_WRITE)
	return block{uintptr(mem), spareMem}, nil
}

// reuse gives memory back that no child has any more.
func (c chunk) reuse() {
	spareMems.Lock()
	defer spareMems.Unlock()
	if len(spareMems.idle) == maxSpareMems {
		_ = unix.MunmapPtr(pointer(c.addr), c.size)
		return
	}
	// What one container was told is not for the process of the next.
	clear(unsafe.Slice((*byte)(pointer(c.addr)), c.told))
	clear(unsafe.Slice((*byte)(pointer(c.addr+c.size-c.blank)), c.blank))
	spareMems.idle = append(spareMems.idle, c.block)
}

// DropSpareMemory gives memory up that was kept for further spares.
func DropSpareMemory() {
	spareMems.Lock()
	defer spareMems.Unlock()
	for _, b := range spareMems.idle {
		_ = unix.MunmapPtr(pointer(b.addr), b.size)
	}
	spareMems.idle = nil
}

// newFDMessages lays out what n descriptors are received in.
func newFDMessages(mem *arena, n int) (hdr uintptr) {
	data := mem.scratch(1)
	control := mem.scratch(unix.CmsgSpace(4 * n))
	iov := (*[2]uintptr)(pointer(mem.alloc(int(unsafe.Sizeof(unix.Iovec{})))))
	iov[0], iov[1] = data, 1
	var msg unix.Msghdr
	msg.Iovlen = 1
	msg.SetControllen(unix.CmsgSpace(4 * n))
	hdr = mem.bytes(unsafe.Slice((*byte)(unsafe.Pointer(&msg)), unsafe.Sizeof(msg)))
	*(*uintptr)(pointer(hdr + unsafe.Offsetof(msg.Iov))) = uintptr(unsafe.Pointer(iov))
	*(*uintptr)(pointer(hdr + unsafe.Offsetof(msg.Control))) = control
	return hdr
}
