// Package netns makes network namespaces that live as long as somebody holds a
// descriptor of them: no bind mount, no process. It also runs code inside one,
// and is the only place that knows what that does to threads.
//
// A namespace belongs to a thread. Code runs inside on a thread that is locked
// to a goroutine of its own; a thread that cannot be brought back is never
// given back to the runtime, which ends it with the goroutine.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const self = "/proc/thread-self/ns/net"

// New makes a network namespace, runs setup on a thread inside it, and returns
// a descriptor that the caller closes. setup may be nil; its error is returned
// as it is, and the namespace is gone then.
func New(setup func() error) (*os.File, error) {
	var ns *os.File
	err := away(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot create a network namespace: %w", err)
		}
		var err error
		if ns, err = os.Open(self); err != nil {
			return fmt.Errorf("cannot open the new network namespace: %w", err)
		}
		if setup == nil {
			return nil
		}
		if err := setup(); err != nil {
			ns.Close()
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// Do runs fn on a thread inside the namespace and returns its error.
func Do(ns *os.File, fn func() error) error {
	return away(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot enter network namespace: %w", err)
		}
		return fn()
	})
}

// Current returns a descriptor of the namespace of the calling thread.
func Current() (*os.File, error) { return os.Open(self) }

// away runs fn, which changes the network namespace of its thread, on a thread
// that goes back to where it came from.
func away(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			result <- visit(fn)
			return
		}
		// To others the main thread is the process: what /proc/PID/ns/net and
		// /proc/net show is its namespace. While it is kept here, a second
		// goroutine is on another thread for certain.
		elsewhere := make(chan error)
		go func() {
			runtime.LockOSThread()
			elsewhere <- visit(fn)
		}()
		result <- <-elsewhere
		runtime.UnlockOSThread()
	}()
	return <-result
}

// visit runs fn and unlocks the thread if it could be brought back.
func visit(fn func() error) error {
	home, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot open %s: %w", self, err)
	}
	defer unix.Close(home)
	err = fn()
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
