//go:build linux && (amd64 || arm64)

package catch

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeEnd is the pipe's, for the handler.
var writeEnd int32 = -1

// handlers returns the addresses of the handler and of what it returns to.
func handlers() (handler, restorer uintptr)

// action is the kernel's struct sigaction.
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	onStack     = 0x08000000 // SA_ONSTACK: a goroutine's stack is too small
	restart     = 0x10000000 // SA_RESTART
	hasRestorer = 0x04000000 // SA_RESTORER
)

var caught struct {
	sync.Mutex                           // guards what follows
	ch         chan<- os.Signal          // where signals go
	before     map[syscall.Signal]action // who had them
}

func take(ch chan<- os.Signal, signals []os.Signal) bool {
	caught.Lock()
	defer caught.Unlock()
	// Of signals that were blocked when we began os/signal unblocks one thread's.
	var blocked uint64
	if sigprocmask(&blocked) != 0 || !listen() {
		return false
	}
	for _, s := range signals {
		if n, ok := s.(syscall.Signal); !ok || blocked>>(n-1)&1 != 0 {
			return false
		}
	}
	caught.ch = ch
	a := action{flags: onStack | restart | hasRestorer, mask: ^uint64(0)}
	a.handler, a.restorer = handlers()
	for _, s := range signals {
		n := s.(syscall.Signal)
		if _, ours := caught.before[n]; ours {
			continue
		}
		var before action
		if sigaction(n, &a, &before) != 0 {
			return false // os/signal may have better luck with the rest
		}
		caught.before[n] = before
	}
	return true
}

// listen makes the pipe and reads from it. The caller holds the lock.
func listen() bool {
	if writeEnd >= 0 {
		return true
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return false
	}
	writeEnd = int32(fds[1])
	caught.before = map[syscall.Signal]action{}
	go deliver(os.NewFile(uintptr(fds[0]), "signals"))
	return true
}

func giveBack() {
	caught.Lock()
	defer caught.Unlock()
	for n, before := range caught.before {
		sigaction(n, &before, nil)
		delete(caught.before, n)
	}
}

// deliver passes on what the handler writes, for as long as the process lives.
func deliver(r *os.File) {
	var buf [64]byte
	for {
		n, err := r.Read(buf[:])
		if err != nil {
			return
		}
		caught.Lock()
		ch := caught.ch
		caught.Unlock()
		for _, s := range buf[:n] {
			select {
			case ch <- syscall.Signal(s):
			default: // as with os/signal: who wants them all makes room
			}
		}
	}
}

func sigaction(s syscall.Signal, a, before *action) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(a)), uintptr(unsafe.Pointer(before)), unsafe.Sizeof(a.mask), 0, 0)
	return errno
}

// sigprocmask reads what is blocked.
func sigprocmask(blocked *uint64) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, 0, 0, uintptr(unsafe.Pointer(blocked)), unsafe.Sizeof(*blocked), 0, 0)
	return errno
}
