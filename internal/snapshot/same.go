package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/layer"
)

// aspects tells how two entries differ. Times are none: they change whenever a
// layer is made anew.
func (c *stackComparer) aspects(full, name string, old, now int, a, b *unix.Stat_t) (what Aspect, err error) {
	if a.Mode&unix.S_IFMT != b.Mode&unix.S_IFMT {
		return Type, nil
	}
	if a.Mode != b.Mode {
		what |= Mode
	}
	if a.Uid != b.Uid || a.Gid != b.Gid {
		what |= Owner
	}
	if same, err := sameXattrs(old, now, name); err != nil {
		return 0, err
	} else if !same {
		what |= Xattrs
	}
	same := true
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		same, err = c.sameFile(full, name, old, now, a, b)
	case unix.S_IFLNK:
		same, err = sameTarget(old, now, name)
	case unix.S_IFCHR, unix.S_IFBLK:
		same = a.Rdev == b.Rdev
	}
	if !same {
		what |= Content
	}
	return what, err
}

func sameXattrs(old, now int, name string) (bool, error) {
	a, err := xattrs(old, name)
	if err != nil {
		return false, err
	}
	b, err := xattrs(now, name)
	return maps.Equal(a, b), err
}

func sameTarget(old, now int, name string) (bool, error) {
	var targets [2]string
	for i, dirfd := range []int{old, now} {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return false, err
		}
		targets[i] = string(buf[:n])
	}
	return targets[0] == targets[1], nil
}

func (c *stackComparer) sameFile(full, name string, old, now int, a, b *unix.Stat_t) (bool, error) {
	if a.Size != b.Size {
		return false, nil
	}
	if a.Size == 0 {
		return true, nil
	}
	i, j := c.old.source(full), c.now.source(full)
	if i >= 0 && j >= 0 && c.old.layers[i] == c.now.layers[j] {
		return true, nil
	}
	return c.sameContent(old, now, name)
}

// sameness compares the content of files.
type sameness struct {
	ctx  context.Context // ends a comparison
	a, b []byte
}

// sameContent compares two regular files of one size.
func (s *sameness) sameContent(old, now int, name string) (bool, error) {
	f, err := openFile(old, name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := openFile(now, name)
	if err != nil {
		return false, err
	}
	defer g.Close()
	if s.a == nil {
		s.a, s.b = make([]byte, 64<<10), make([]byte, 64<<10)
	}
	return s.sameBytes(f, g)
}

// openFile opens a regular file. A running container may have put a device or
// a fifo in its place, which must not be opened: it is gone then.
func openFile(dirfd int, name string) (*os.File, error) {
	place, err := unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &os.PathError{Op: "open", Path: name, Err: unix.ENOENT}
	}
	fd, err := unix.Open(selfPath(place), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// sameBytes compares two files of one size.
func (s *sameness) sameBytes(f, g io.Reader) (bool, error) {
	for {
		if s.ctx.Err() != nil {
			return false, context.Cause(s.ctx)
		}
		n, err := io.ReadFull(f, s.a)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		m, err := io.ReadFull(g, s.b)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		if n != m || !bytes.Equal(s.a[:n], s.b[:m]) {
			return false, nil
		}
		if n < len(s.a) {
			return true, nil
		}
	}
}

// whiteoutName reads the name of an entry of a layer where deletions are kept
// as the archive has them: what it takes away, or whether it empties the
// directory it is in.
func (s *store) whiteoutName(name string) (gone string, opaque bool) {
	if s.whiteouts != layer.Literal {
		return "", false // they are devices and attributes
	}
	if name == ".wh..wh..opq" {
		return "", true
	}
	gone, _ = strings.CutPrefix(name, ".wh.")
	if gone == name {
		return "", false
	}
	return gone, false
}
