package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PackOptions change how a tree becomes an archive.
type PackOptions struct {
	// Whiteouts is Overlay for the upper directory of an overlay mount.
	Whiteouts Whiteouts
	// Root also writes an entry "./" for the root directory itself.
	Root bool
	// OneFileSystem writes what is mounted below root as an empty directory.
	OneFileSystem bool
	// Skip, when set, leaves out a path and what is below it. The path is
	// relative to root, without a leading "./".
	Skip func(path string) bool
	// MapOwner, when set, translates the owner on disk.
	MapOwner func(Owner) (Owner, error)
}

// Entry is one path of an archive that PackEntries writes.
type Entry struct {
	Path    string // with or without a leading slash
	Deleted bool   // write a whiteout for it
	// Replaces says that the layers below have something there, which must not
	// come to light again where the archive cannot say what does.
	Replaces bool
}

// Pack writes the tree beneath root as a tar archive: names in order, owners as
// numbers, times in nanoseconds, hard links and extended attributes kept,
// sockets left out. The same tree always gives the same bytes.
func Pack(ctx context.Context, root *os.File, w io.Writer, opts PackOptions) error {
	p, err := newPacker(ctx, root, w, &opts)
	if err != nil {
		return err
	}
	defer p.close()
	if opts.Root {
		if err := p.entry(p.rootfd, ".", "./", false); err != nil {
			return err
		}
	}
	if err := p.children(p.rootfd, ""); err != nil {
		return err
	}
	return p.finish()
}

// PackEntries writes the given paths of a tree, parents before what is in them,
// as the archive of a layer. Directories are written without their content. A
// path that is gone by now is left out, and so is one whose name would mean the
// deletion of another.
func PackEntries(ctx context.Context, root *os.File, w io.Writer, entries []Entry) error {
	p, err := newPacker(ctx, root, w, &PackOptions{})
	if err != nil {
		return err
	}
	defer p.close()
	t, err := newTree(p.rootfd)
	if err != nil {
		return err
	}
	defer t.close()
	for _, e := range entries {
		name := strings.Trim(e.Path, "/")
		if strings.HasPrefix(name, whiteoutPrefix) || strings.Contains(name, "/"+whiteoutPrefix) {
			continue
		}
		if err := p.changed(t, name, e); err != nil && !IsGone(err) {
			return p.explain(name, err)
		}
	}
	return p.finish()
}

// changed writes one entry of PackEntries.
func (p *packer) changed(t *tree, name string, e Entry) error {
	if name == "" {
		return p.entry(p.rootfd, ".", "./", false)
	}
	dirName, base := path.Split(name)
	if e.Deleted {
		return p.whiteout(dirName + whiteoutPrefix + base)
	}
	d, err := t.lookup(path.Clean(dirName), false)
	if err != nil {
		return err
	}
	if e.Replaces {
		var st unix.Stat_t
		if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return p.whiteout(dirName + whiteoutPrefix + base)
		}
	}
	return p.entry(d.fd, base, name, false)
}

// packer is one archive being written.
type packer struct {
	ctx    context.Context // of Pack
	opts   *PackOptions
	rootfd int
	dev    uint64 // file system of the root
	tw     *tar.Writer
	links  map[inode]string // first name of files that have several
	buf    []byte
}

type inode struct{ dev, ino uint64 }

func newPacker(ctx context.Context, root *os.File, w io.Writer, opts *PackOptions) (*packer, error) {
	return newPackerAt(ctx, int(root.Fd()), w, opts)
}

func newPackerAt(ctx context.Context, rootfd int, w io.Writer, opts *PackOptions) (*packer, error) {
	fd, err := reopen(rootfd)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &packer{
		ctx: ctx, opts: opts, rootfd: fd, dev: uint64(st.Dev),
		tw:    tar.NewWriter(w),
		links: map[inode]string{},
		buf:   make([]byte, 256<<10),
	}, nil
}

func (p *packer) close() { unix.Close(p.rootfd) }

func (p *packer) finish() error { return p.tw.Close() }

func (p *packer) explain(name string, err error) error {
	var explained *packError
	if err == nil || p.ctx.Err() != nil || errors.As(err, &explained) {
		return err
	}
	return &packError{name, err}
}

// packError says at which path an archive failed.
type packError struct {
	name string
	err  error
}

func (e *packError) Error() string { return fmt.Sprintf("cannot pack %s: %v", e.name, e.err) }
func (e *packError) Unwrap() error { return e.err }

// children writes everything in a directory, whose name ends in a slash unless
// it is the root's empty one.
func (p *packer) children(dirfd int, prefix string) error {
	list, err := readNames(dirfd)
	if errors.Is(err, unix.ENOENT) {
		return nil // a directory that was removed meanwhile
	}
	if err != nil {
		return p.explain(prefix, err)
	}
	slices.Sort(list)
	for _, base := range list {
		name := prefix + base
		if p.opts.Skip != nil && p.opts.Skip(name) {
			continue
		}
		if err := p.entry(dirfd, base, name, true); err != nil && !IsGone(err) {
			return err
		}
	}
	return nil
}

// entry writes one file or directory; with recurse, also what is in it.
// What IsGone knows comes back as it is.
func (p *packer) entry(dirfd int, base, name string, recurse bool) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil // tar has no way to say it
	case unix.S_IFDIR:
		return p.directory(dirfd, base, name, recurse)
	case unix.S_IFREG:
		return p.regular(dirfd, base, name)
	}
	if p.opts.Whiteouts == Overlay && isWhiteout(&st) {
		dirName, base := path.Split(name)
		return p.whiteout(dirName + whiteoutPrefix + base)
	}
	fd, err := openat(dirfd, base, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	kind := st.Mode & unix.S_IFMT
	if err := unix.Fstat(fd, &st); err != nil {
		return p.explain(name, err)
	}
	if st.Mode&unix.S_IFMT != kind {
		return unix.ENOENT // it is not what it was
	}
	hdr, err := p.header(fd, name, &st)
	if err != nil {
		return p.explain(name, err)
	}
	if kind == unix.S_IFLNK {
		if hdr.Linkname, err = readlinkat(fd, ""); err != nil {
			return p.explain(name, err)
		}
	}
	return p.write(hdr, &st)
}

// IsGone tells of a failure that only says that what was looked at, in the tree of
// a running container, has disappeared since or is another kind of thing now.
func IsGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func (p *packer) directory(dirfd int, base, name string, recurse bool) error {
	fd, err := openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !strings.HasSuffix(name, "/") {
		name += "/"
	}
	hdr, err := p.header(fd, name, &st)
	if err != nil {
		return p.explain(name, err)
	}
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if p.opts.Whiteouts == Overlay && isOpaque(fd) {
		if err := p.whiteout(name + whiteoutOpaque); err != nil {
			return err
		}
	}
	if !recurse || (p.opts.OneFileSystem && uint64(st.Dev) != p.dev) {
		return nil
	}
	return p.children(fd, name)
}

func isOpaque(fd int) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(fd, opaqueXattr, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

func (p *packer) regular(dirfd int, base, name string) error {
	// A running container may have put a device in the place of the file since:
	// what is opened to be read is what was looked at.
	place, err := openat(dirfd, base, unix.O_PATH, 0)
	if err == unix.ENOENT {
		return err
	}
	if err != nil {
		return p.explain(name, err)
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return p.explain(name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.ENOENT // it is not what it was
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p.explain(name, err)
	}
	defer unix.Close(fd)
	hdr, err := p.header(fd, name, &st)
	if err != nil {
		return p.explain(name, err)
	}
	if linked, err := p.link(hdr, &st); linked || err != nil {
		return err
	}
	hdr.Size = st.Size
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	return p.explain(name, p.content(fd, &st))
}

// write writes an entry without content.
func (p *packer) write(hdr *tar.Header, st *unix.Stat_t) error {
	if linked, err := p.link(hdr, st); linked || err != nil {
		return err
	}
	return p.tw.WriteHeader(hdr)
}

// link writes a hard link if another name of the same file was written before.
func (p *packer) link(hdr *tar.Header, st *unix.Stat_t) (bool, error) {
	if st.Nlink < 2 {
		return false, nil
	}
	key := inode{uint64(st.Dev), st.Ino}
	first, again := p.links[key]
	if !again {
		p.links[key] = hdr.Name
		return false, nil
	}
	hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
	hdr.PAXRecords = nil
	return true, p.tw.WriteHeader(hdr)
}

func (p *packer) whiteout(name string) error {
	return p.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Format: tar.FormatPAX})
}
