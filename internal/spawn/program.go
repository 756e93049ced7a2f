package spawn

import (
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reg is a register: a word of the page parent and child share.
type Reg uint16

// Label is a place in the program to jump to. Label 0 is "the next step".
type Label int32

// Arg is an argument of a step: a number, the address of prepared memory or a
// register.
type Arg struct {
	v   uintptr
	reg bool
}

// Int is a number as an argument; negative ones (AT_FDCWD) are fine.
func Int(i int) Arg { return Arg{v: uintptr(i)} }

// Uint is a number as an argument.
func Uint(u uint64) Arg { return Arg{v: uintptr(u)} }

// Val is the content a register has when the step runs.
func Val(r Reg) Arg { return Arg{v: uintptr(r), reg: true} }

// Pseudo system calls of the interpreter, above any real number.
const (
	opJump     = 1<<16 + iota // jump to the label
	opFail                    // fail with errno a0
	opEqual                   // errno 0 when a0 == a1, otherwise EDOM
	opByte                    // errno 0 when the byte at a0 is a1, otherwise a2
	opPoke32                  // store a1 at address a0
	opPeek16                  // the 16 bits at address a0, masked with a1
	opMove                    // a0 as the result
	opBarrier                 // tell the parent event a0 and wait for it
	opAnnounce                // send the parent the byte at a0
	opOffer                   // let the parent take descriptor a0 and wait for that
	opDetach                  // tell the parent not to wait for anything more
	opFork                    // clone with CLONE_PARENT; the old process ends
	opRescue                  // what fails from here on goes on at onErr, once
	opForget                  // give up the memory described at a0
	opGate                    // wait until the parent has done Attr.Meanwhile
	opMkpath                  // make the path described at a0 exist
)

const (
	flagAnyErr  = 1 << iota // every errno is one of errs
	flagSave                // the result goes to register save
	flagKeepErr             // a tolerated EACCES goes to register save
	flagLast                // a child that is gone at this step did what it should
)

const maxErrs = 8

// step is one call. Nothing in it is a Go pointer: the child may not run write
// barriers, and the garbage collector does not know of it.
type step struct {
	nr    uintptr
	args  [6]uintptr
	regs  uint8 // bit i: args[i] is a register
	flags uint8
	save  uint16
	nerrs uint8
	errs  [maxErrs]uint8 // tolerated errnos
	onErr int32          // label, then step, to go on at after a tolerated errno
	onOK  int32          // the same after success
	doing int32          // index of the sentence
}

// stepPool keeps the memory of programs that have been started.
var stepPool = sync.Pool{New: func() any { s := make([]step, 0, 512); return &s }}

// release gives back all memory of a program.
func (p *Program) release() {
	p.mem.release()
	p.dropSteps()
}

func (p *Program) dropSteps() {
	if steps := p.steps; steps != nil {
		stepPool.Put(&steps)
	}
	p.steps = nil
}

// image copies the steps to where the child finds them.
func (p *Program) image() uintptr {
	size := len(p.steps) * int(unsafe.Sizeof(step{}))
	return p.mem.bytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(p.steps))), size))
}

// Program is a list of system calls under construction. It is used by one
// goroutine and started once.
type Program struct {
	steps  []step
	labels []int32 // the step of each
	doing  []sentence
	mem    arena
	nregs  int
	cmsg   *fdMessage
	walk   mkpathArgs // what all calls of Mkpath share
	// offered is the event of the descriptor that is offered.
	offered int
	forget  uintptr // the arguments of opForget; 0 without one
	todo    uintptr // work of the child, once it was forked
	base    int32   // what page.step is at the first step
	spare   *Spare  // the child that is to run it, or nil
	// detaches says that Detaching was called.
	detaches bool
}

// sentence says what steps are for: "cannot VERB A PREP B: errno".
type sentence struct{ verb, a, prep, b string }

func (s sentence) String() string {
	parts := []string{s.verb}
	for _, w := range []string{s.a, s.prep, s.b} {
		if w != "" {
			parts = append(parts, w)
		}
	}
	return strings.Join(parts, " ")
}

// Doing names what the following steps do, for the error when one of them
// fails: Doing("mount", "proc", "on", "/proc") gives "cannot mount proc on
// /proc: …". Only the verb is required.
func (p *Program) Doing(verb string, rest ...string) {
	s := sentence{verb: verb}
	for i, dst := range []*string{&s.a, &s.prep, &s.b} {
		if i < len(rest) {
			*dst = rest[i]
		}
	}
	p.doing = append(p.doing, s)
}

// Len is the number of steps so far.
func (p *Program) Len() int { return len(p.steps) }

// Steps calls f with the sentence of every step, in order: for tests and for
// people who want to see what will happen.
func (p *Program) Steps(f func(doing string)) {
	for i := range p.steps {
		if d := p.steps[i].doing; d >= 0 {
			f(p.doing[d].String())
		}
	}
}

// NewReg returns a register nobody uses yet. There are about a thousand; Start
// reports when a program wanted more.
func (p *Program) NewReg() Reg {
	p.nregs++
	return Reg((p.nregs - 1) % maxRegs)
}

// NewLabel returns a label that is still nowhere.
func (p *Program) NewLabel() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels))
}

// Mark puts the label in front of the next step.
func (p *Program) Mark(l Label) { p.labels[l-1] = int32(len(p.steps)) }

// Step is the step added last, to be refined before the next is added.
type Step struct{ p *Program }

func (s Step) last() *step { return &s.p.steps[len(s.p.steps)-1] }

// Sys adds a system call.
func (p *Program) Sys(nr uintptr, args ...Arg) Step {
	if p.steps == nil {
		p.steps = (*stepPool.Get().(*[]step))[:0]
	}
	p.steps = append(p.steps, step{nr: nr, doing: int32(len(p.doing) - 1)})
	st := &p.steps[len(p.steps)-1]
	for i, a := range args {
		st.args[i] = a.v
		if a.reg {
			st.regs |= 1 << i
		}
	}
	return Step{p}
}

// Save keeps the result in r.
func (s Step) Save(r Reg) Step {
	st := s.last()
	st.save, st.flags = uint16(r), st.flags|flagSave
	return s
}

// Ignore goes on with the next step when the call fails with one of errnos, or
// with any when none is listed.
func (s Step) Ignore(errnos ...syscall.Errno) Step { return s.Else(0, errnos...) }

// Else goes on at l when the call fails with one of errnos, or with any when
// none is listed.
func (s Step) Else(l Label, errnos ...syscall.Errno) Step {
	st := s.last()
	if len(errnos) == 0 {
		st.flags |= flagAnyErr
	}
	for _, e := range errnos {
		if st.nerrs == maxErrs {
			panic("spawn: too many errnos for one step")
		}
		st.errs[st.nerrs] = uint8(e)
		st.nerrs++
	}
	st.onErr = int32(l)
	return s
}

// Then goes on at l when the call succeeds.
func (s Step) Then(l Label) Step { s.last().onOK = int32(l); return s }

// KeepDenied stores EACCES in r when that is how a tolerated call failed: the
// rule of execvp, which goes on looking but remembers.
func (s Step) KeepDenied(r Reg) Step {
	st := s.last()
	st.save, st.flags = uint16(r), st.flags|flagKeepErr
	return s
}

// Last says that the step is where the child leaves the program (execve): a
// child that is gone there was started.
func (s Step) Last() Step { s.last().flags |= flagLast; return s }

// Jump goes on at l.
func (p *Program) Jump(l Label) { p.Sys(opJump).Then(l) }

// Fail ends the child with an errno.
func (p *Program) Fail(errno Arg) Step { return p.Sys(opFail, errno) }

// Rescue has the child go on at l, with the errno in r, should a step fail after
// this one: for what it has to say about a failure when its parent has stopped
// listening (Detach). What fails at l or later ends it as ever.
func (p *Program) Rescue(l Label, r Reg) {
	p.Sys(opRescue)
	st := &p.steps[len(p.steps)-1]
	st.onErr, st.save = int32(l), uint16(r)
}

// Set puts a value in a register.
func (p *Program) Set(r Reg, v Arg) { p.Sys(opMove, v).Save(r) }

// IfEqual goes on at l when a and b are equal.
func (p *Program) IfEqual(a, b Arg, l Label) { p.Sys(opEqual, a, b).Then(l).Ignore(unix.EDOM) }

// CheckByte fails with errno unless the byte at addr is want.
func (p *Program) CheckByte(addr Arg, want byte, errno syscall.Errno) Step {
	return p.Sys(opByte, addr, Int(int(want)), Int(int(errno)))
}

// Poke32 stores 32 bits of v at addr.
func (p *Program) Poke32(addr, v Arg) { p.Sys(opPoke32, addr, v) }

// Peek16 loads 16 bits from addr, masked, into r.
func (p *Program) Peek16(r Reg, addr Arg, mask uint16) {
	p.Sys(opPeek16, addr, Int(int(mask))).Save(r)
}

// Barrier tells the parent the event and waits for its answer. Events are
// 1 to 127.
func (p *Program) Barrier(event int) { p.Sys(opBarrier, Int(event)) }

// Gate waits until the parent has done Attr.Meanwhile.
func (p *Program) Gate() { p.Sys(opGate) }

// Fork makes a new process, a sibling with the same parent, that goes on with
// the program, while the present one ends. It is how a process enters a pid
// namespace that was joined or unshared.
func (p *Program) Fork() { p.Sys(opFork) }

// Detaching tells the parent that Detach will follow. Until then failures are
// still reported.
func (p *Program) Detaching() {
	p.detaches = true
	p.Sys(opAnnounce, p.Bytes([]byte{eventDetach}))
}

// Detach makes the rest of the program the child's own business: Start returns,
// and nobody learns of later failures. It makes no system call, so that it works
// under any seccomp filter; Detaching has to come before.
func (p *Program) Detach() { p.Sys(opDetach) }

// SendFD hands the parent the descriptor fd; see Child.Files.
func (p *Program) SendFD(fd Arg) Step {
	if p.cmsg == nil {
		p.cmsg = newFDMessage(&p.mem)
	}
	p.Poke32(Arg{v: p.cmsg.fdAddr}, fd)
	return p.Sys(unix.SYS_SENDMSG, Arg{v: sockArg}, Arg{v: p.cmsg.hdr}, Int(unix.MSG_NOSIGNAL))
}

// Offer lets the parent take the descriptor that the call added by sys returns,
// and waits until it has: as SendFD, but without a system call after that one,
// which may be the one that installs a seccomp filter. Barrier is called with
// event once the descriptor is in Child.Files.
func (p *Program) Offer(event int, sys func() Step) {
	fd := p.NewReg()
	p.offered = event
	p.Sys(opAnnounce, p.Bytes([]byte{eventOffer}))
	sys().Save(fd)
	p.Sys(opOffer, Val(fd))
}

// Mkpath makes path exist below the directory open in root, as a directory or
// else as an empty file, with all directories before it. Symlinks are followed, also
// dangling ones, but never out of root.
func (p *Program) Mkpath(root Reg, path string, dir bool) Step {
	m := p.newMkpath(path, dir)
	return p.Sys(opMkpath, m, Val(root))
}

// Str is the address of a zero-terminated copy of s.
func (p *Program) Str(s string) Arg { return Arg{v: p.mem.str(s)} }

// Bytes is the address of a copy of b.
func (p *Program) Bytes(b []byte) Arg { return Arg{v: p.mem.bytes(b)} }

// Space is the address of n zero bytes for the child to write to, aligned to 16.
func (p *Program) Space(n int) Arg { return Arg{v: p.mem.scratch(n)} }

// Struct is the address of a copy of the size bytes at v. They must hold no Go
// pointer; addresses in them come from Addr.
func (p *Program) Struct(v unsafe.Pointer, size uintptr) Arg {
	return Arg{v: p.mem.bytes(unsafe.Slice((*byte)(v), size))}
}

// Strs is the address of a zero-terminated array of strings, as execve takes.
func (p *Program) Strs(list []string) Arg {
	addr := p.mem.alloc((len(list) + 1) * int(unsafe.Sizeof(uintptr(0))))
	for i, s := range list {
		word := addr + uintptr(i)*unsafe.Sizeof(uintptr(0))
		*(*uintptr)(pointer(word)) = p.mem.str(s)
	}
	return Arg{v: addr}
}

// Addr is the number behind an address, for structures that contain one.
func (a Arg) Addr() uintptr { return a.v }

// Plus is the address n bytes further.
func (a Arg) Plus(n int) Arg { return Arg{v: a.v + uintptr(n)} }

// link replaces labels by step indexes.
func (p *Program) link() {
	for i := range p.steps {
		st := &p.steps[i]
		st.onErr = p.target(st.onErr, i)
		st.onOK = p.target(st.onOK, i)
	}
}

func (p *Program) target(l int32, i int) int32 {
	if l == 0 {
		return int32(i + 1)
	}
	if p.labels[l-1] < 0 {
		panic("spawn: label without a place")
	}
	return p.labels[l-1]
}
