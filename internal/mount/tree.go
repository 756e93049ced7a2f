package mount

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/thread"
)

// Bind is a tree of files to be seen at a path of another.
type Bind struct {
	// Tree is a detached mount, see Detached. It stays the caller's, and may be
	// closed once it was used.
	Tree   *os.File
	Target string // absolute inside the other tree; links are followed inside it
}

// Tree is a root with other mounts in it, attached nowhere on the host.
type Tree struct {
	// Root is opened with O_PATH, for openat(2) and its relatives.
	Root *os.File
	ns   *os.File // keeps the mounts together
}

// Close unmounts everything, except what files still open need.
func (t *Tree) Close() error { return errors.Join(t.Root.Close(), t.ns.Close()) }

// Assemble mounts a root stack and what belongs into it, in order: the file
// system of a stopped container with its volumes. Targets that are missing are
// made, as starting the container would. With readOnly the root itself cannot be
// written to, once they are. The upper directory of an overlay must not be mounted
// elsewhere at the same time.
func Assemble(root []Mount, binds []Bind, readOnly bool) (*Tree, error) {
	base, err := Detached(root)
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "gantry-mount-")
	if err != nil {
		base.Close()
		return nil, err
	}
	defer os.Remove(scratch)
	t := &Tree{Root: base}
	err = inPrivate(func() (err error) {
		rootfd := int(base.Fd())
		if err := unix.MoveMount(rootfd, "", unix.AT_FDCWD, scratch, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return err
		}
		for _, b := range binds {
			if err := b.attach(rootfd); err != nil {
				return fmt.Errorf("cannot mount %s on %s: %w", b.Tree.Name(), b.Target, err)
			}
		}
		if readOnly {
			if err := unix.MountSetattr(rootfd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
				return err
			}
		}
		t.ns, err = os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/mnt", os.Getpid(), unix.Gettid()))
		return err
	})
	if err != nil {
		base.Close()
		return nil, err
	}
	return t, nil
}

// attach moves the tree below the directory rootfd. It runs on a thread of
// inPrivate. Nothing that is mounted later on the host appears in it.
func (b Bind) attach(rootfd int) error {
	var st unix.Stat_t
	tree := int(b.Tree.Fd())
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	target, err := makeTarget(rootfd, b.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR, maxLinks)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// maxLinks is how deep a target may be that has to be made, each link that leads
// to nothing counted.
const maxLinks = 255

// makeTarget opens the path to mount on, making what is missing of it: also what
// a link leads to.
func makeTarget(rootfd int, target string, isDir bool, depth int) (int, error) {
	fd, err := OpenIn(rootfd, target, unix.O_PATH)
	if err != unix.ENOENT {
		return fd, err
	}
	if depth == 0 {
		return -1, unix.ELOOP
	}
	// Not cleaned: ".." after a link is elsewhere.
	dir, base := path.Split(strings.TrimRight(target, "/"))
	parent, err := makeTarget(rootfd, "/"+dir, true, depth-1)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	switch {
	case base == "" || base == "." || base == "..":
		return OpenIn(rootfd, target, unix.O_PATH)
	case isDir:
		err = unix.Mkdirat(parent, base, 0o755)
	default:
		err = unix.Mknodat(parent, base, unix.S_IFREG|0o644, 0)
	}
	if err != unix.EEXIST {
		if err != nil {
			return -1, err
		}
		return OpenIn(rootfd, target, unix.O_PATH)
	}
	var link [unix.PathMax]byte
	n, err := unix.Readlinkat(parent, base, link[:])
	if err != nil {
		return -1, err
	}
	if next := string(link[:n]); path.IsAbs(next) {
		return makeTarget(rootfd, next, isDir, depth-1)
	}
	return makeTarget(rootfd, dir+string(link[:n]), isDir, depth-1)
}

// OpenIn opens a path inside root as a process would whose root it is: links,
// absolute ones too, lead to places inside. Magic links of a /proc in there are
// not followed.
func OpenIn(rootfd int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	return undisturbed(func() (int, error) { return unix.Openat2(rootfd, name, &how) })
}

// maxDisturbed is how often a path is looked up. Who renames without a pause, as
// a container may, must not keep others here for ever.
const maxDisturbed = 1000

// undisturbed opens until it is not EAGAIN: something was mounted or renamed
// meanwhile, anywhere, and ".." may have escaped.
func undisturbed(open func() (int, error)) (fd int, err error) {
	for range maxDisturbed {
		if fd, err = open(); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}

// fdPath names an open file in a way that cannot come to mean another.
func fdPath(fd int) string { return "/proc/thread-self/fd/" + strconv.Itoa(fd) }

// RootOf returns the root file system of a process without what is mounted on
// it, opened with O_PATH: for exporting a running container, whose /proc or
// volumes are no part of it. The process is given by its directory in /proc,
// which cannot come to mean another one. The upper directory of an overlay is not
// mounted a second time. The kernel must have open_tree(2), which is Linux 5.2.
func RootOf(proc *os.File) (*os.File, error) {
	root, err := rootOf(proc)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the root of process %s: %w", path.Base(proc.Name()), err)
	}
	return root, nil
}

func rootOf(proc *os.File) (*os.File, error) {
	ns, err := unix.Openat(int(proc.Fd()), "ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ns)
	root, err := unix.Openat(int(proc.Fd()), "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var clone *os.File
	err = thread.Spend(func() error {
		// A tree can only be cloned from within its mount namespace, which a
		// thread can only enter when it shares its directory with no other.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("cannot enter its mount namespace: %w", err)
		}
		fd, err := cloneTree(root, "", &parsed{})
		if err == nil {
			clone = os.NewFile(uintptr(fd), "root")
		}
		return err
	})
	return clone, err
}
