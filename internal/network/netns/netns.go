// Package netns makes network namespaces that live as long as somebody holds a
// descriptor of them: no bind mount, no process. It also runs code inside one.
//
// A namespace belongs to a thread. Code runs inside on a thread that is brought
// back afterwards, or not used again (package thread).
package netns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/thread"
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
	return thread.Borrow(func() (restored bool, err error) {
		home, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return true, fmt.Errorf("cannot open %s: %w", self, err)
		}
		defer unix.Close(home)
		err = fn()
		return unix.Setns(home, unix.CLONE_NEWNET) == nil, err
	})
}
