package snapshot

import (
	"context"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/layer"
)

type copyOptions struct {
	whiteouts bool // .wh. entries of the source delete from the destination
	keepRoot  bool // leave the attributes of the destination's root
}

// copyTree adds the tree at src to the one at dst, which nobody else changes.
// Owners, modes, times, extended attributes, hard links and holes are kept;
// blocks are shared where the file system can.
func copyTree(ctx context.Context, src, dst string, opts copyOptions) error {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(dst)
	if err != nil {
		return err
	}
	defer to.Close()
	c := copier{ctx: ctx, opts: opts, root: int(to.Fd()), links: map[inode]string{}}
	if err := c.dir(int(from.Fd()), int(to.Fd()), "."); err != nil {
		return err
	}
	if opts.keepRoot {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	return c.attributes(int(from.Fd()), int(to.Fd()), &st)
}

// copier is one run of copyTree.
type copier struct {
	ctx   context.Context // of copyTree
	opts  copyOptions
	root  int              // of the destination
	links map[inode]string // where files with several names went first
	buf   []byte
}

// dir copies what is in a directory. Deletions come first: they are about what
// was there before.
func (c *copier) dir(from, to int, rel string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	list, err := names(from)
	if err != nil {
		return err
	}
	if c.opts.whiteouts {
		if list, err = applyWhiteouts(to, list); err != nil {
			return fmt.Errorf("cannot delete from %s: %w", rel, err)
		}
	}
	for _, name := range list {
		full := path.Join(rel, name)
		if err := c.entry(from, to, name, full); err != nil {
			if c.ctx.Err() != nil {
				return err
			}
			return fmt.Errorf("cannot copy %s: %w", full, err)
		}
	}
	return nil
}

// applyWhiteouts carries out the deletions among names and returns the others.
func applyWhiteouts(to int, names []string) ([]string, error) {
	kept := names[:0]
	for _, name := range names {
		deleted, ok := strings.CutPrefix(name, ".wh.")
		switch {
		case !ok:
			kept = append(kept, name)
		case name == ".wh..wh..opq":
			if err := removeChildren(to); err != nil {
				return nil, err
			}
		case !strings.HasPrefix(name, ".wh..wh."):
			if err := removeAt(to, deleted); err != nil && err != unix.ENOENT {
				return nil, err
			}
		}
	}
	return kept, nil
}

func (c *copier) entry(from, to int, name, full string) error {
	src, err := unix.Openat(from, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if isDir(&st) {
		return c.subdir(src, to, name, full, &st)
	}
	if err := removeAt(to, name); err != nil && err != unix.ENOENT {
		return err
	}
	if st.Nlink > 1 {
		if first, again := c.links[inodeOf(&st)]; again {
			return unix.Linkat(c.root, first, to, name, 0)
		}
		c.links[inodeOf(&st)] = full
	}
	if err := c.create(src, to, name, &st); err != nil {
		return err
	}
	dst, err := unix.Openat(to, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	return c.attributes(src, dst, &st)
}

func (c *copier) subdir(src, to int, name, full string, st *unix.Stat_t) error {
	err := unix.Mkdirat(to, name, 0o700)
	if err == unix.EEXIST {
		var old unix.Stat_t
		if old, err = lstatat(to, name); err == nil && !isDir(&old) {
			if err = unix.Unlinkat(to, name, 0); err == nil {
				err = unix.Mkdirat(to, name, 0o700)
			}
		}
	}
	if err != nil {
		return err
	}
	readable, err := openDir(src, ".")
	if err != nil {
		return err
	}
	defer unix.Close(readable)
	dst, err := openDir(to, name)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if err := c.dir(readable, dst, full); err != nil {
		return err
	}
	return c.attributes(readable, dst, st)
}

// create makes a copy of src, which is no directory, without its attributes.
func (c *copier) create(src, to int, name string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.regular(src, to, name, st.Size)
	case unix.S_IFLNK:
		buf := make([]byte, 4097)
		n, err := unix.Readlinkat(src, "", buf)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(buf[:n]), to, name)
	}
	return unix.Mknodat(to, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
}

func (c *copier) regular(src, to int, name string, size int64) error {
	in, err := unix.Open(selfPath(src), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = c.content(in, out, size)
	if cerr := unix.Close(out); err == nil {
		err = cerr
	}
	return err
}

// content shares the blocks of a file, or copies those it has.
func (c *copier) content(in, out int, size int64) error {
	if size == 0 || unix.IoctlFileClone(out, in) == nil {
		return nil
	}
	if err := unix.Ftruncate(out, size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		start, err := unix.Seek(in, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // only a hole is left
		}
		end := size
		if err == nil {
			end, err = unix.Seek(in, start, unix.SEEK_HOLE)
		} else if err == unix.EINVAL {
			start, err = at, nil // a file system that knows no holes
		}
		if err != nil {
			return err
		}
		if err := c.extent(in, out, start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// extent copies a range at the same offset.
func (c *copier) extent(in, out int, start, end int64) error {
	for from, to := start, start; from < end; {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		n, err := unix.CopyFileRange(in, &from, out, &to, int(min(end-from, 64<<20)), 0)
		switch {
		case err == unix.EINTR:
		case err == unix.EXDEV || err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP:
			return c.readWrite(in, out, from, end)
		case err != nil:
			return err
		case n == 0:
			return nil // the source got shorter
		}
	}
	return nil
}

func (c *copier) readWrite(in, out int, at, end int64) error {
	if c.buf == nil {
		c.buf = make([]byte, 256<<10)
	}
	for at < end {
		n, err := unix.Pread(in, c.buf[:min(end-at, int64(len(c.buf)))], at)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for done := 0; done < n; {
			m, err := unix.Pwrite(out, c.buf[done:n], at+int64(done))
			if err != nil && err != unix.EINTR {
				return err
			}
			done += max(m, 0)
		}
		at += int64(n)
	}
	return nil
}

func selfPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// attributes gives dst the owner, mode, extended attributes and times of src,
// and no others. Both may be opened with O_PATH.
func (c *copier) attributes(src, dst int, st *unix.Stat_t) error {
	if err := unix.Fchownat(dst, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	self := selfPath(dst)
	attrs, err := layer.Xattrs(src)
	if err != nil {
		return err
	}
	// What was there before has some of its own, or gave them to what is new.
	if c.opts.whiteouts {
		if err := dropXattrs(dst, attrs); err != nil {
			return err
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(self, st.Mode&0o7777); err != nil {
			return err
		}
	}
	for name, value := range attrs {
		if err := unix.Setxattr(self, name, []byte(value), 0); err != nil && err != unix.ENOTSUP && err != unix.EPERM {
			return err
		}
	}
	ts := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(dst, "", ts, unix.AT_EMPTY_PATH)
}

// dropXattrs removes the extended attributes that are not among those to keep.
func dropXattrs(fd int, keep map[string]string) error {
	found, err := layer.Xattrs(fd)
	if err != nil {
		return err
	}
	for name := range found {
		if _, ok := keep[name]; ok {
			continue
		}
		if err := unix.Removexattr(selfPath(fd), name); err != nil && err != unix.ENODATA {
			return err
		}
	}
	return nil
}

// removeAt deletes name and everything below it without following links.
func removeAt(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	if err := below(dirfd, name, removeChildren); err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

func removeChildren(dirfd int) error {
	list, err := names(dirfd)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := removeAt(dirfd, name); err != nil {
			return err
		}
	}
	return nil
}
