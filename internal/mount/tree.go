package mount

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Bind is a directory or file of the host to be seen at a path of a tree.
type Bind struct {
	Source   string
	Target   string // absolute inside the tree; links are followed inside it
	ReadOnly bool
}

// Tree is a root with other mounts in it, attached nowhere on the host.
type Tree struct {
	// Root is opened with O_PATH, for openat(2) and its relatives.
	Root *os.File
	ns   *os.File // keeps the mounts together
}

// Close unmounts everything, except what files still open need.
func (t *Tree) Close() error { return errors.Join(t.Root.Close(), t.ns.Close()) }

// Assemble mounts a root stack and binds into it, in order: the file system of
// a stopped container with its volumes. Targets that are missing are made, as
// starting the container would. The upper directory of an overlay must not be mounted
// elsewhere at the same time.
func Assemble(root []Mount, binds []Bind) (*Tree, error) {
	if len(root) != 1 {
		return nil, errs.InvalidArgument("cannot mount a stack of %d mounts, only of one", len(root))
	}
	scratch, err := os.MkdirTemp("", "gantry-mount-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(scratch)
	t := &Tree{}
	err = inPrivate(func() error {
		if err := root[0].attach(scratch); err != nil {
			return err
		}
		fd, err := unix.Open(scratch, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Root = os.NewFile(uintptr(fd), "root")
		for _, b := range binds {
			if err := b.attach(fd); err != nil {
				return fmt.Errorf("cannot bind %s on %s: %w", b.Source, b.Target, err)
			}
		}
		t.ns, err = os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/mnt", os.Getpid(), unix.Gettid()))
		return err
	})
	if err != nil {
		if t.Root != nil {
			t.Root.Close()
		}
		return nil, err
	}
	return t, nil
}

// attach binds b below the directory rootfd. It runs on a thread of inPrivate.
func (b Bind) attach(rootfd int) error {
	var src unix.Stat_t
	if err := unix.Stat(b.Source, &src); err != nil {
		return err
	}
	isDir := src.Mode&unix.S_IFMT == unix.S_IFDIR
	target, err := makeTarget(rootfd, b.Target, isDir)
	if err != nil {
		return err
	}
	err = unix.Mount(b.Source, fdPath(target), "", unix.MS_BIND|unix.MS_REC, "")
	unix.Close(target)
	if err != nil || !b.ReadOnly {
		return err
	}
	mounted, err := openIn(rootfd, b.Target)
	if err != nil {
		return err
	}
	defer unix.Close(mounted)
	return unix.Mount("", fdPath(mounted), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// makeTarget opens the path to mount on, making what is missing of it.
func makeTarget(rootfd int, target string, isDir bool) (int, error) {
	fd, err := openIn(rootfd, target)
	if err != unix.ENOENT {
		return fd, err
	}
	parentName, base := path.Split(path.Clean(target))
	parent, err := makeTarget(rootfd, parentName, true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if isDir {
		err = unix.Mkdirat(parent, base, 0o755)
	} else {
		err = unix.Mknodat(parent, base, unix.S_IFREG|0o644, 0)
	}
	if err != nil {
		return -1, err // EEXIST: a link that leads to nothing
	}
	return openIn(rootfd, target)
}

func openIn(rootfd int, name string) (int, error) {
	return unix.Openat2(rootfd, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// fdPath names an open file in a way that cannot come to mean another.
func fdPath(fd int) string { return "/proc/thread-self/fd/" + strconv.Itoa(fd) }

// RootOf returns the root file system of a process without what is mounted on
// it, opened with O_PATH: for exporting a running container, whose /proc or
// volumes are no part of it. The upper directory of an overlay is not mounted a
// second time. The kernel must have open_tree(2), which is Linux 5.2.
func RootOf(pid int) (*os.File, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var clone *os.File
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not be used again
		// A tree can only be cloned from within its mount namespace, which a
		// thread can only enter when it shares its directory with no other.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("cannot enter the mount namespace of process %d: %w", pid, err)
			return
		}
		fd, err := cloneTree(int(root.Fd()), "", &parsed{})
		if err == nil {
			clone = os.NewFile(uintptr(fd), "root")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, fmt.Errorf("cannot reach the root of process %d: %w", pid, err)
	}
	return clone, nil
}
