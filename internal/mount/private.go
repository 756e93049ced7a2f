package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/thread"
)

// inPrivate runs f on a thread that has a mount namespace of its own, from
// which nothing propagates to the host. The thread ends with f, and with it the
// namespace unless f kept a descriptor of it.
func inPrivate(f func() error) error {
	return thread.Spend(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("cannot create a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("cannot make the mount namespace private: %w", err)
		}
		return f()
	})
}

// private makes the mount with mount(2) in a namespace of its own and takes a
// copy out of there that is attached to nothing.
func private(m Mount) (*os.File, error) {
	scratch, err := os.MkdirTemp("", "gantry-mount-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(scratch)
	var root *os.File
	err = inPrivate(func() error {
		if err := m.attach(scratch); err != nil {
			return err
		}
		fd, err := cloneTree(unix.AT_FDCWD, scratch, &parsed{recursive: true})
		if err != nil {
			return err
		}
		root = os.NewFile(uintptr(fd), m.Type)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return root, nil
}

// attach carries out the mount with mount(2). It may change the directory of
// the calling thread, which therefore has to be one of inPrivate.
func (m Mount) attach(target string) error {
	l, err := m.Legacy()
	if err != nil {
		return err
	}
	if l.Dir != "" {
		if err := unix.Chdir(l.Dir); err != nil {
			return &os.PathError{Op: "chdir", Path: l.Dir, Err: err}
		}
	}
	if err := unix.Mount(m.Source, target, m.Type, l.Flags, l.Data); err != nil {
		return fmt.Errorf("cannot mount %s: %w", m.Type, err)
	}
	// The first mount(2) of a bind ignores every flag but MS_REC.
	if rest := l.Flags &^ (unix.MS_BIND | unix.MS_REC); l.Flags&unix.MS_BIND != 0 && rest != 0 {
		if err := unix.Mount("", target, "", rest|unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.Type, err)
		}
	}
	return nil
}
