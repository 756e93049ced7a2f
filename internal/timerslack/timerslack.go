// Package timerslack tells the kernel that the timers of this process need not be
// punctual.
//
// While a Go program works, a thread of its runtime looks after it every 20 µs.
// Each look is a timer of the kernel and two switches of a processor, on a virtual
// machine of the hypervisor's, too: a tenth of what a daemon spends on the start
// of a container. With more slack the looks are fewer, and nothing else here waits
// for less than it.
//
// What a process has is inherited by those it starts. Containers, and what is for
// them or lasts, must not get this: whoever starts one does so in Strictly. Of the
// helpers that answer and end, such as ps, nobody notices.
package timerslack

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// relaxed is the slack in nanoseconds.
const relaxed = 1_000_000

// original is the slack this process was started with; 0 before Relax.
var original uintptr

// Relax gives every thread of this process the slack, and with that all they make
// later. Where it is not allowed everything stays as it is. It is called once,
// before other processes are started.
func Relax() {
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || slack <= 0 || slack >= relaxed {
		return
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	original = uintptr(slack)
	for _, t := range threads {
		write("/proc/" + t.Name() + "/timerslack_ns")
	}
}

func write(path string) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_, _ = unix.Write(fd, strconv.AppendUint(nil, relaxed, 10))
}

// Strictly calls f on a thread that has the slack this process was started with:
// what f starts inherits that.
func Strictly(f func()) {
	if original == 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, original, 0, 0, 0)
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, relaxed, 0, 0, 0)
	f()
}
