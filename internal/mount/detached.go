package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// fsconfig(2) copies at most this many bytes of a string, its zero included.
const maxFsconfigString = 256

// Detached mounts without attaching the mount anywhere and returns a descriptor
// of its root, usable as the directory of openat(2) and its relatives (it is
// opened with O_PATH: to list the root, open "." beneath it). The mount goes
// away when the descriptor and everything opened beneath it are closed.
//
// A plain bind does not show what is mounted below its source; rbind does. The
// upper directory of an overlay must not be mounted elsewhere at the same time:
// for a running container use its own root instead.
//
// The descriptor may also be given to move_mount(2), in any mount namespace.
// Where the kernel cannot configure the file system that way (overlay before
// Linux 6.7) the mount is made in a mount namespace of its own that lives only
// for the duration of the call, and cloned out of it. That needs open_tree(2),
// which is Linux 5.2.
func Detached(mounts []Mount) (*os.File, error) {
	if len(mounts) != 1 {
		return nil, errs.InvalidArgument("cannot mount a stack of %d mounts, only of one", len(mounts))
	}
	m := mounts[0]
	if p := m.parse(); p.subdir != "" {
		return part(m, &p)
	}
	fd, err := detached(m)
	// An overlay may also be invalid because this kernel knows less of the way
	// it was described; mount(2) knows it all.
	if errors.Is(err, errUnsupported) || m.Type == "overlay" && errors.Is(err, unix.EINVAL) {
		root, perr := private(m)
		if perr == nil && longLower(m) {
			oneByOneRefused.Store(true)
		}
		if perr != nil && !errors.Is(err, errUnsupported) && err != error(unix.EINVAL) {
			return nil, fmt.Errorf("%w (%w)", perr, err) // overlayfs said what it disliked
		}
		return root, perr
	}
	if err != nil {
		return nil, fmt.Errorf("cannot mount %s: %w", m.Type, err)
	}
	return os.NewFile(uintptr(fd), m.Type), nil
}

// part is Detached for what is inside of a file system. A part can only be taken
// of a mount that is attached (until Linux 6.15), which this one is in a mount
// namespace that nobody else sees, and that ends with the call.
func part(m Mount, p *parsed) (*os.File, error) {
	whole := m
	whole.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, Subdir) })
	root, err := Detached([]Mount{whole})
	if err != nil {
		return nil, err
	}
	defer root.Close()
	scratch, err := os.MkdirTemp("", "gantry-mount-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(scratch)
	var out *os.File
	err = inPrivate(func() error {
		if err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, scratch, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return err
		}
		place, err := OpenIn(int(root.Fd()), p.subdir, unix.O_PATH)
		if err != nil {
			return err
		}
		defer unix.Close(place)
		fd, err := cloneTree(place, "", &parsed{attrs: p.attrs})
		if err == nil {
			out = os.NewFile(uintptr(fd), m.Type)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, errs.NotFound("cannot find %s in it", p.subdir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot mount %s of a %s: %w", p.subdir, m.Type, err)
	}
	return out, nil
}

var errUnsupported = errors.New("this kernel cannot make a detached mount of that kind")

func detached(m Mount) (int, error) {
	p := m.parse()
	if p.bind {
		return cloneTree(unix.AT_FDCWD, m.Source, &p)
	}
	fsfd, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return -1, errUnsupported
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(fsfd)
	c := config{fd: fsfd}
	defer c.close()
	if m.Source != "" {
		if err := unix.FsconfigSetString(fsfd, "source", m.Source); err != nil {
			return -1, c.explain(err)
		}
	}
	if p.flags&unix.MS_RDONLY != 0 {
		if err := unix.FsconfigSetFlag(fsfd, "ro"); err != nil {
			return -1, c.explain(err)
		}
	}
	for _, param := range p.params {
		if err := c.set(m.Type, param); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, c.explain(err)
	}
	return unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, int(p.attrs))
}

// config feeds options to a file system being made.
type config struct {
	fd   int
	held []int // descriptors named by /proc/self/fd paths
}

func (c *config) close() {
	for _, fd := range c.held {
		unix.Close(fd)
	}
}

func (c *config) set(fstype string, p param) error {
	if p.flag {
		return c.explain(unix.FsconfigSetFlag(c.fd, p.key))
	}
	if fstype == "overlay" {
		switch p.key {
		case "lowerdir":
			return c.setLower(p.value)
		case "upperdir", "workdir":
			dir, err := c.short(Unescape(p.value))
			if err != nil {
				return err
			}
			return c.explain(unix.FsconfigSetString(c.fd, p.key, EscapeDir(dir)))
		}
	}
	if len(p.value) >= maxFsconfigString {
		return errUnsupported
	}
	return c.explain(unix.FsconfigSetString(c.fd, p.key, p.value))
}

// oneByOneRefused is set once this kernel (before Linux 6.7) has refused
// lowerdir+: each refusal is a line in the kernel's log.
var oneByOneRefused atomic.Bool

// setLower names the layers in one string, which every kernel takes, or where
// they are too many for that adds them one by one. lowerdir+ takes its value as
// it is, without escapes.
func (c *config) setLower(value string) error {
	if len(value) < maxFsconfigString {
		return c.explain(unix.FsconfigSetString(c.fd, "lowerdir", value))
	}
	if oneByOneRefused.Load() {
		return errUnsupported
	}
	for _, dir := range SplitLower(value) {
		dir, err := c.short(dir)
		if err != nil {
			return err
		}
		if err := unix.FsconfigSetString(c.fd, "lowerdir+", dir); err != nil {
			return c.explain(err)
		}
	}
	return nil
}

// longLower tells whether the layers of an overlay are added one by one.
func longLower(m Mount) bool {
	for _, o := range m.Options {
		if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
			return len(v) >= maxFsconfigString
		}
	}
	return false
}

// short gives a name for dir that fits into one fsconfig string.
func (c *config) short(dir string) (string, error) {
	if len(EscapeDir(dir)) < maxFsconfigString {
		return dir, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	c.held = append(c.held, fd)
	return fdPath(fd), nil
}

// explain adds what the kernel wrote into the context's message log, which is
// where overlayfs says which directory it disliked.
func (c *config) explain(err error) error {
	if err == nil {
		return nil
	}
	buf := make([]byte, 1024)
	n, rerr := unix.Read(c.fd, buf)
	if rerr != nil || n < 3 {
		return err
	}
	return fmt.Errorf("%s: %w", string(buf[2:n]), err) // "e " or "w " comes first
}

// cloneTree makes a detached bind mount of path, following links as mount(8) does.
func cloneTree(dirfd int, path string, p *parsed) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	attrFlags := uint(unix.AT_EMPTY_PATH)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if p.recursive {
		flags |= unix.AT_RECURSIVE
		attrFlags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dirfd, path, flags)
	if errors.Is(err, unix.ENOSYS) {
		return -1, errUnsupported
	}
	if err != nil {
		return -1, &os.PathError{Op: "bind", Path: path, Err: err}
	}
	if p.attrs != 0 {
		err := unix.MountSetattr(fd, "", attrFlags, &unix.MountAttr{Attr_set: p.attrs})
		if err != nil {
			unix.Close(fd)
			if errors.Is(err, unix.ENOSYS) {
				return -1, errUnsupported
			}
			return -1, err
		}
	}
	return fd, nil
}
