package spawn

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockArg stands for the child's end of the socket in arguments; it is replaced
// when the program starts.
const sockArg = ^uintptr(0) - 0xfeed

// code is what the child works on.
type code struct {
	steps uintptr
	n     int
	base  int32 // what page.step is at the first step
	page  *page
	sock  uintptr
	// rescue is the step after a failure, rescueReg where the errno goes; 0 for
	// none.
	rescue    int32
	rescueReg uint16
}

// run interprets the program in the child. It returns at the end of the program
// and ends the process when a step fails.
//
// Everything it calls has to be nosplit, must not allocate and must not store Go
// pointers: there is no scheduler, no collector and no second thread here.
//
//go:nosplit
//go:norace
func run(c *code) {
	i := 0
	for i < c.n {
		st := (*step)(pointer(c.steps + uintptr(i)*unsafe.Sizeof(step{})))
		c.page.step = c.base + int32(i)
		var r uintptr
		var e syscall.Errno
		if st.nr == opMkpath { // not in call: the stack of all this is limited
			e = mkpath((*mkpathArgs)(pointer(st.args[0])), uintptr(c.page.regs[st.args[1]]))
		} else if st.nr == opForget {
			e = forget((*forgetArgs)(pointer(st.args[0])))
		} else {
			r, e = call(c, st)
		}
		if e == 0 {
			if st.flags&flagSave != 0 {
				c.page.regs[st.save] = int64(r)
			}
			i = int(st.onOK)
			continue
		}
		if !tolerated(st, e) {
			if c.rescue == 0 {
				c.page.errno = int32(e)
				exit(127)
			}
			c.page.regs[c.rescueReg] = int64(e)
			i, c.rescue = int(c.rescue), 0
			continue
		}
		if st.flags&flagKeepErr != 0 && e == unix.EACCES {
			c.page.regs[st.save] = int64(e)
		}
		i = int(st.onErr)
	}
}

//go:nosplit
//go:norace
func exit(code uintptr) {
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, code, 0, 0, 0, 0, 0)
	}
}

//go:nosplit
//go:norace
func tolerated(st *step, e syscall.Errno) bool {
	if st.flags&flagAnyErr != 0 {
		return true
	}
	for i := uint8(0); i < st.nerrs; i++ {
		if syscall.Errno(st.errs[i&(maxErrs-1)]) == e {
			return true
		}
	}
	return false
}

//go:nosplit
//go:norace
func call(c *code, st *step) (uintptr, syscall.Errno) {
	var a [6]uintptr
	for i := range a {
		a[i] = st.args[i]
		if st.regs&(1<<i) != 0 {
			a[i] = uintptr(c.page.regs[a[i]])
		}
	}
	switch st.nr {
	case opJump:
		return 0, 0
	case opMove:
		return a[0], 0
	case opFail:
		return 0, syscall.Errno(a[0])
	case opEqual:
		if a[0] != a[1] {
			return 0, unix.EDOM
		}
		return 0, 0
	case opByte:
		if uintptr(*(*uint8)(pointer(a[0]))) != a[1] {
			return 0, syscall.Errno(a[2])
		}
		return 0, 0
	case opPoke32:
		*(*uint32)(pointer(a[0])) = uint32(a[1])
		return 0, 0
	case opPeek16:
		return uintptr(*(*uint16)(pointer(a[0]))) & a[1], 0
	case opBarrier:
		return 0, barrier(c, a[0])
	case opGate:
		if atomic.LoadInt64(&c.page.open) != 0 {
			return 0, 0
		}
		return 0, barrier(c, eventGate)
	case opAnnounce:
		_, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, c.sock, a[0], 1, unix.MSG_NOSIGNAL, 0, 0)
		return 0, e
	case opOffer:
		// No system call is made: a filter may just have forbidden all of them.
		atomic.StoreInt64(&c.page.offer, int64(a[0])+1)
		for atomic.LoadInt64(&c.page.taken) == 0 {
		}
		return 0, 0
	case opDetach:
		atomic.StoreInt64(&c.page.alone, 1)
		return 0, 0
	case opFork:
		return 0, fork(c)
	case opRescue:
		c.rescue, c.rescueReg = st.onErr, st.save
		return 0, 0
	}
	if a[0] == sockArg {
		a[0] = c.sock
	}
	// openat2 answers EAGAIN when a rename raced with a ".." below the root; it
	// means "ask again".
	for range 1000 {
		r, _, e := syscall.RawSyscall6(st.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if e == unix.EINTR || e == unix.EAGAIN && st.nr == unix.SYS_OPENAT2 {
			continue
		}
		return r, e
	}
	return 0, unix.EAGAIN
}

// barrier sends the parent one byte and waits for one. A parent that is gone
// ends the child.
//
//go:nosplit
//go:norace
func barrier(c *code, event uintptr) syscall.Errno {
	b := byte(event)
	buf := uintptr(unsafe.Pointer(&b))
	if _, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, c.sock, buf, 1, unix.MSG_NOSIGNAL, 0, 0); e != 0 {
		return e
	}
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_READ, c.sock, buf, 1, 0, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		if n == 0 {
			return unix.ECANCELED
		}
		return 0
	}
}

// ForkFlags is the first argument of the clone that Program.Fork makes; the
// others are 0. A seccomp filter may want to see it.
const ForkFlags = unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID | uint64(unix.SIGCHLD)

// fork continues in a sibling. The kernel notes its pid before it runs: whoever
// kills the two of us knows of both, whatever moment that is. The arguments of
// clone after the third come in a different order on every architecture, but all
// of them are zero.
//
//go:nosplit
//go:norace
func fork(c *code) syscall.Errno {
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(ForkFlags), 0, uintptr(unsafe.Pointer(&c.page.pid)), 0, 0, 0)
	if e != 0 {
		return e
	}
	if pid == 0 {
		return 0
	}
	exit(0)
	return 0
}
