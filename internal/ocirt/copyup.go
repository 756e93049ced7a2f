package ocirt

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// copyUp fills a tmpfs with what is in the directory it is going to hide. The
// parent does it, through the descriptors of the waiting child, because copying
// a tree takes more than a flat program.
type copyUp struct {
	from, to spawn.Reg // descriptors in the child
	path     string
}

func (c *copyUp) run(child *spawn.Child) error {
	err := copyTree(childFD(child, c.from), childFD(child, c.to))
	if err != nil {
		return fmt.Errorf("cannot copy the content of %s into its tmpfs: %w", c.path, err)
	}
	return nil
}

func childFD(child *spawn.Child, r spawn.Reg) string {
	return fmt.Sprintf("/proc/%d/fd/%d", child.Current(), child.Reg(r))
}

// copyTree copies the content of the directory behind the magic link src to the
// one behind dst. No name below them is followed when it is a symlink.
func copyTree(src, dst string) error {
	from, err := openDir(unix.AT_FDCWD, src+"/.")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openDir(unix.AT_FDCWD, dst+"/.")
	if err != nil {
		return err
	}
	defer to.Close()
	return copyDir(from, to)
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func copyDir(from, to *os.File) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		if err := copyEntry(from, to, name, &st); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(from, to *os.File, name string, st *unix.Stat_t) error {
	src, dst := int(from.Fd()), int(to.Fd())
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = copySubdir(from, to, name)
	case unix.S_IFLNK:
		buf := make([]byte, 4096)
		var n int
		if n, err = unix.Readlinkat(src, name, buf); err == nil {
			err = unix.Symlinkat(string(buf[:n]), dst, name)
		}
	case unix.S_IFREG:
		err = copyFile(src, dst, name)
	default:
		err = unix.Mknodat(dst, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return &os.PathError{Op: "copy", Path: name, Err: err}
	}
	if err := unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: name, Err: err}
		}
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copySubdir(from, to *os.File, name string) error {
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	sub, err := openDir(int(from.Fd()), name)
	if err != nil {
		return err
	}
	defer sub.Close()
	dst, err := openDir(int(to.Fd()), name)
	if err != nil {
		return err
	}
	defer dst.Close()
	return copyDir(sub, dst)
}

func copyFile(src, dst int, name string) error {
	in, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r := os.NewFile(uintptr(in), name)
	defer r.Close()
	out, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	w := os.NewFile(uintptr(out), name)
	_, err = io.Copy(w, r)
	if err == nil {
		copyAttributes(in, out)
	}
	return errors.Join(err, w.Close())
}

// copyAttributes copies the extended attributes a tmpfs can have; file
// capabilities are what matters.
func copyAttributes(in, out int) {
	var value [65536]byte
	if n, err := unix.Fgetxattr(in, "security.capability", value[:]); err == nil {
		_ = unix.Fsetxattr(out, "security.capability", value[:n], 0)
	}
}
