package layer

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/mount"
)

// PathStat describes a path of a container as Docker's archive API does.
type PathStat struct {
	Name  string // last element of the path
	Size  int64  // bytes
	Mode  fs.FileMode
	Mtime time.Time
	// LinkTarget is where a symbolic link leads in the end, as an absolute path
	// inside the root; it need not exist.
	LinkTarget string
}

// absolute makes a path absolute and clean, but keeps a trailing slash or "/.",
// which demand a directory and, for a link, the one it leads to.
func absolute(p string) string {
	clean := path.Join("/", p)
	switch {
	case p == "." || strings.HasSuffix(p, "/."):
		return strings.TrimSuffix(clean, "/") + "/."
	case strings.HasSuffix(p, "/") && clean != "/":
		return clean + "/"
	}
	return clean
}

// pathError words a failure to reach a path of the container.
func pathError(p string, err error) error {
	switch err {
	case nil:
		return nil
	case unix.ENOENT:
		return errs.NotFound("cannot find %s: %w", p, err)
	case unix.ENOTDIR:
		return errs.InvalidArgument("cannot reach %s: %w", p, err)
	}
	return &os.PathError{Op: "open", Path: p, Err: err}
}

// StatPath describes a path inside root. Links on the way are followed inside
// root, one at its end is not unless the path ends in a slash or "/.". Fails
// with ErrNotFound.
func StatPath(root *os.File, p string) (PathStat, error) {
	abs := absolute(p)
	fd, st, err := lookPath(root, abs)
	if err != nil {
		return PathStat{}, pathError(p, err)
	}
	defer unix.Close(fd)
	stat := PathStat{
		Name:  path.Base(abs),
		Size:  st.Size,
		Mode:  fileMode(st.Mode),
		Mtime: time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)),
	}
	if stat.Mode&fs.ModeSymlink != 0 {
		if stat.LinkTarget, err = linkTarget(int(root.Fd()), abs); err != nil {
			return PathStat{}, pathError(p, err)
		}
	}
	return stat, nil
}

// lookPath opens a path with O_PATH, not following a link at its end.
func lookPath(root *os.File, abs string) (int, *unix.Stat_t, error) {
	flags := uint64(unix.O_PATH | unix.O_NOFOLLOW)
	if strings.HasSuffix(abs, "/") || strings.HasSuffix(abs, "/.") {
		flags = unix.O_PATH | unix.O_DIRECTORY
	}
	fd, err := mount.OpenIn(int(root.Fd()), abs, flags)
	if err != nil {
		return -1, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, &st, nil
}

// linkTarget follows the link at p, and those it leads to, as far as they go.
func linkTarget(rootfd int, p string) (string, error) {
	for range maxLinks {
		dirName, base := path.Split(p)
		parent, err := realPath(rootfd, dirName)
		if err != nil {
			return "", err
		}
		here := path.Join(parent, base)
		fd, err := mount.OpenIn(rootfd, here, unix.O_PATH|unix.O_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			return here, nil
		}
		if err != nil {
			return "", err
		}
		target, err := readlinkat(fd, "")
		unix.Close(fd)
		if err != nil { // not a link: the end
			return here, nil
		}
		if p = target; !path.IsAbs(p) {
			p = path.Join(parent, target)
		}
		p = path.Clean(p)
	}
	return "", unix.ELOOP
}

// realPath resolves every link of a directory's path; what does not exist is
// kept as it is written.
func realPath(rootfd int, p string) (string, error) {
	done := "/"
	rest := strings.Split(p, "/")
	links := 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		fd, err := mount.OpenIn(rootfd, next, unix.O_PATH|unix.O_NOFOLLOW)
		if err == unix.ENOENT {
			done = next
			continue
		}
		if err != nil {
			return "", err
		}
		target, err := readlinkat(fd, "")
		unix.Close(fd)
		if err != nil {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done, nil
}

// fileMode translates st_mode as os.Lstat does.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// PlaceIn finds a path inside root, as OpenIn does, whatever is there. The file
// it returns is only a place (O_PATH): nothing was opened. Fails with ErrNotFound.
func PlaceIn(root *os.File, p string) (*os.File, error) {
	fd, err := mount.OpenIn(int(root.Fd()), path.Join("/", p), unix.O_PATH)
	if err != nil {
		return nil, pathError(p, err)
	}
	return os.NewFile(uintptr(fd), p), nil
}

// OpenIn opens a path inside root, as a process would whose root it is, and
// returns it for reading: for /etc/passwd and the like. A regular file or
// directory only, so that opening never waits and touches no device. Fails with
// ErrNotFound.
func OpenIn(root *os.File, p string) (*os.File, error) {
	fd, err := mount.OpenIn(int(root.Fd()), path.Join("/", p), unix.O_PATH)
	if err != nil {
		return nil, pathError(p, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, pathError(p, err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil, errs.InvalidArgument("%s is neither a file nor a directory", p)
	}
	readable, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError(p, err)
	}
	return os.NewFile(uintptr(readable), p), nil
}
