// Package thread runs code that changes the thread it is on: enters other
// namespaces, gives up capabilities. It knows nothing of what is changed.
//
// Such a thread is never given back to the runtime unless it was brought back to
// what it was; it ends with the goroutine that had it. And it is never the main
// thread, which to others is the process: what /proc/PID/ns and
// /proc/self/mountinfo show is its, and it cannot end before the process does.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Spend runs f on a thread that is not used for anything else afterwards, and
// returns its error.
func Spend(f func() error) error {
	return Borrow(func() (bool, error) { return false, f() })
}

// Borrow runs f on a thread that is used for other things again if f says that
// it is as it was, and returns f's error. Within Unhurried that thread is not in a
// hurry either.
func Borrow(f func() (restored bool, err error)) error {
	if attr, err := unix.SchedGetAttr(0, 0); err == nil && attr.Policy == unix.SCHED_BATCH {
		f = yielding(f)
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if !isMain() {
			result <- use(f)
			return
		}
		// While the main thread is kept here, a second goroutine is on another
		// for certain.
		elsewhere := make(chan error)
		go func() {
			runtime.LockOSThread()
			elsewhere <- use(f)
		}()
		result <- <-elsewhere
		runtime.UnlockOSThread()
	}()
	return <-result
}

func isMain() bool { return unix.Gettid() == unix.Getpid() }

func use(f func() (bool, error)) error {
	restored, err := f()
	if restored {
		runtime.UnlockOSThread()
	}
	return err
}

// Unhurried runs f on a thread that leaves the processor to others who want it,
// but for a tenth: on a machine that is never idle f has to end, too, as somebody
// may wait for that. Who forks in f wants the policy of the process for the child.
func Unhurried(f func()) {
	_ = Borrow(yielding(func() (bool, error) {
		f()
		return true, nil
	}))
}

// yields is how much nicer an unhurried thread is; the kernel gives it about a
// tenth of what it gives others.
const yields = 10

// yielding is f as SCHED_BATCH and nice, where that can be had.
func yielding(f func() (bool, error)) func() (bool, error) {
	return func() (bool, error) {
		own, err := unix.SchedGetAttr(0, 0)
		if err != nil || own.Policy != unix.SCHED_NORMAL {
			return f()
		}
		nice := *own
		nice.Policy, nice.Nice = unix.SCHED_BATCH, min(own.Nice+yields, 19)
		if unix.SchedSetAttr(0, &nice, 0) != nil {
			return f()
		}
		restored, err := f()
		return unix.SchedSetAttr(0, own, 0) == nil && restored, err
	}
}
