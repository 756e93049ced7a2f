package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Unpack writes the tree of an uncompressed archive beneath root, a directory
// no one else changes meanwhile, and reads r to its end. An entry whose name is
// absolute or leads out of root, or that does so through a symbolic link, is
// refused with ErrInvalidArgument; a symbolic link to an absolute path means a
// path in root. Deletions go by opts.Whiteouts.
//
// On failure the caller removes what is there. r is not read any more when
// Unpack returns; it is read ahead in another goroutine before.
func Unpack(ctx context.Context, root *os.File, r io.Reader, opts UnpackOptions) (Result, error) {
	u, err := newUnpacker(ctx, root, &opts)
	if err != nil {
		return Result{}, err
	}
	return u.unpack(r)
}

// unpack runs and closes u.
func (u *unpacker) unpack(r io.Reader) (Result, error) {
	defer u.close()
	ahead := readAhead(r)
	defer ahead.stop()
	if err := u.run(ahead); err != nil {
		return u.result, err
	}
	// The tar reader takes an archive cut off in the padding between entries for
	// a whole one that lacks the end marker, which some tools do not write.
	if ahead.ended && ahead.total%tarBlock != 0 && !u.opts.Verified {
		return u.result, archiveError(io.ErrUnexpectedEOF)
	}
	if err := ahead.drain(u.ctx); err != nil && u.ctx.Err() == nil {
		return u.result, archiveError(err)
	} else if err != nil {
		return u.result, err
	}
	return u.result, nil
}

const tarBlock = 512

// unpacker is one run of Unpack.
type unpacker struct {
	ctx      context.Context // of Unpack
	opts     *UnpackOptions
	tree     *tree
	rootfd   int
	prefix   string // where in the root the archive goes; "" is the root itself
	umask    uint32
	owner    Owner // what a new file belongs to
	buf      []byte
	result   Result
	room     int64               // bytes that may be written before opts.Room is asked
	unpacked map[string]struct{} // with Remove: what this archive made, by real path
}

func newUnpacker(ctx context.Context, root *os.File, opts *UnpackOptions) (*unpacker, error) {
	fd, err := reopen(int(root.Fd()))
	if err != nil {
		return nil, err
	}
	t, err := newTree(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	t.whiteouts = opts.Whiteouts == Overlay
	t.umask = currentUmask()
	u := &unpacker{
		ctx: ctx, opts: opts, tree: t, rootfd: fd,
		umask: t.umask,
		owner: Owner{os.Geteuid(), os.Getegid()},
		buf:   make([]byte, 256<<10),
	}
	if opts.Whiteouts == Remove {
		u.unpacked = map[string]struct{}{}
	}
	return u, nil
}

func (u *unpacker) close() {
	u.tree.close()
	unix.Close(u.rootfd)
}

func (u *unpacker) run(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // we judge names ourselves
			return archiveError(err)
		}
		if err := u.entry(hdr, tr); err != nil {
			return err
		}
	}
	return u.finishDirs()
}

// cleanName turns the name of an entry into a path relative to the root.
func cleanName(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", badArchive("the path %q is absolute", name)
	}
	if len(name) > maxPath {
		return "", badArchive("a path of %d bytes, beginning with %q, is too long", len(name), name[:64])
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", badArchive("the path %q has a zero byte", name)
	}
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if part == ".." {
			return "", badArchive("the path %q leads out of the root directory", name)
		}
	}
	return path.Clean(name), nil
}

func (u *unpacker) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := u.take(entrySize(hdr)); err != nil {
		return u.explain(hdr.Name, err)
	}
	name := hdr.Name
	if u.opts.Whiteouts == Literal {
		// A person's archive, as Docker's client sends one with --use-api-socket:
		// for tar(1) too an absolute path is one below where it unpacks.
		name = strings.TrimLeft(name, "/")
	}
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	if name == "." {
		return u.rootEntry(hdr)
	}
	if err := u.mapOwner(hdr); err != nil {
		return err
	}
	parentName, base := path.Split(name)
	parent, err := u.tree.lookup(path.Join(u.prefix, path.Clean(parentName)), true)
	if err != nil {
		return u.explain(name, err)
	}
	if u.opts.Whiteouts != Literal && strings.HasPrefix(base, whiteoutPrefix) {
		return u.explain(name, u.whiteout(parent, base))
	}
	parent.pins++
	err = u.create(parent, base, hdr, content)
	parent.pins--
	if err == nil && u.unpacked != nil {
		u.unpacked[path.Join(parent.path, base)] = struct{}{}
	}
	return u.explain(name, err)
}

// rootEntry notes the attributes of the root directory for later.
func (u *unpacker) rootEntry(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return badArchive("the entry %q for the root is not a directory", hdr.Name)
	}
	if u.opts.KeepRoot {
		return nil
	}
	if err := u.mapOwner(hdr); err != nil {
		return err
	}
	d, err := u.tree.lookup(path.Clean(u.prefix), false)
	if err != nil {
		return u.explain(hdr.Name, err)
	}
	u.result.Root = true
	d.pending = hdr
	return nil
}

// maxID is the largest user or group; the kernel takes the next one for "do not
// change" and cuts larger ones down, to root's in the worst case.
const maxID = 1<<32 - 2

func (u *unpacker) mapOwner(hdr *tar.Header) error {
	switch {
	case u.opts.Chown != nil:
		hdr.Uid, hdr.Gid = u.opts.Chown.UID, u.opts.Chown.GID
	case u.opts.MapOwner != nil:
		o, err := u.opts.MapOwner(Owner{hdr.Uid, hdr.Gid})
		if err != nil {
			return fmt.Errorf("cannot unpack %s: %w", hdr.Name, err)
		}
		hdr.Uid, hdr.Gid = o.UID, o.GID
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || hdr.Uid > maxID || hdr.Gid > maxID {
		return badArchive("%q belongs to %d:%d, which no user and group can be", hdr.Name, hdr.Uid, hdr.Gid)
	}
	return nil
}

// explain words a failure at the entry name.
func (u *unpacker) explain(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errEscape):
		return badArchive("the path %q leads out of the root directory through a symbolic link", name)
	case err == unix.ENOTDIR:
		return badArchive("the path %q leads through something that is not a directory", name)
	case err == unix.ELOOP:
		return badArchive("the path %q leads through a loop of symbolic links", name)
	case err == unix.ENAMETOOLONG:
		return badArchive("the path %q has a name that is too long", name)
	}
	if class := (*entryError)(nil); errors.As(err, &class) {
		return class.error
	}
	return fmt.Errorf("cannot unpack %s: %w", name, err)
}

// entryError is an error that is a whole sentence already.
type entryError struct{ error }

func badEntry(format string, args ...any) error {
	return &entryError{badArchive(format, args...)}
}

// create makes one entry other than a whiteout beneath parent.
func (u *unpacker) create(parent *dir, base string, hdr *tar.Header, content io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.directory(parent, base, hdr)
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		return u.regular(parent, base, hdr, content)
	case tar.TypeLink:
		return u.hardLink(parent, base, hdr)
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) >= maxPath || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			return badEntry("the symbolic link %q has no usable target", hdr.Name)
		}
		return u.node(parent, base, hdr, func() error {
			return unix.Symlinkat(hdr.Linkname, parent.fd, base)
		})
	case tar.TypeChar:
		return u.device(parent, base, hdr, unix.S_IFCHR)
	case tar.TypeBlock:
		return u.device(parent, base, hdr, unix.S_IFBLK)
	case tar.TypeFifo:
		return u.node(parent, base, hdr, func() error {
			return unix.Mknodat(parent.fd, base, unix.S_IFIFO|0o600, 0)
		})
	}
	return badEntry("the entry %q has the unknown type %q", hdr.Name, hdr.Typeflag)
}

func (u *unpacker) device(parent *dir, base string, hdr *tar.Header, kind uint32) error {
	return u.node(parent, base, hdr, func() error {
		dev := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		return unix.Mknodat(parent.fd, base, kind|0o600, int(dev))
	})
}

// node makes something that is neither directory nor regular file.
func (u *unpacker) node(parent *dir, base string, hdr *tar.Header, mk func() error) error {
	if err := u.replacing(parent, base, hdr, mk); err != nil {
		return err
	}
	return u.attributes(parent, base, hdr)
}

// replacing runs mk, and once more after removing what stood in its way.
func (u *unpacker) replacing(parent *dir, base string, hdr *tar.Header, mk func() error) error {
	err := mk()
	if err != unix.EEXIST {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && u.opts.NoOverwriteDirNonDir {
		return &entryError{errs.InvalidArgument("cannot overwrite directory %q with non-directory %q", path.Join("/", parent.path, base), hdr.Name)}
	}
	if err := u.remove(parent, base, isDir); err != nil {
		return err
	}
	return mk()
}

// remove deletes base and everything below it.
func (u *unpacker) remove(parent *dir, base string, isDir bool) error {
	if !isDir {
		clear(u.tree.logical)
		return unix.Unlinkat(parent.fd, base, 0)
	}
	u.tree.forget(path.Join(parent.path, base))
	return removeTree(parent.fd, base)
}

func (u *unpacker) directory(parent *dir, base string, hdr *tar.Header) error {
	full := path.Join(parent.path, base)
	if known := u.tree.real[full]; known != nil {
		known.pending = hdr
		return nil
	}
	d, err := u.tree.mkdir(parent, base, 0o755)
	if err == unix.EEXIST {
		d, err = u.existingDirectory(parent, base, hdr)
	}
	if err != nil {
		return err
	}
	d.pending = hdr
	return nil
}

// existingDirectory is directory where the name is taken.
func (u *unpacker) existingDirectory(parent *dir, base string, hdr *tar.Header) (*dir, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		fd, err := openat(parent.fd, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		return u.tree.adopt(path.Join(parent.path, base), fd, false)
	case u.opts.NoOverwriteDirNonDir:
		return nil, &entryError{errs.InvalidArgument("cannot overwrite non-directory %q with directory %q", path.Join("/", parent.path, base), hdr.Name)}
	case u.opts.Whiteouts == Overlay && isWhiteout(&st):
		return u.tree.overWhiteout(parent, base, 0o755)
	}
	if err := u.remove(parent, base, false); err != nil {
		return nil, err
	}
	return u.tree.mkdir(parent, base, 0o755)
}

// hardLink gives another name to a file of this tree.
func (u *unpacker) hardLink(parent *dir, base string, hdr *tar.Header) error {
	// Some tools write the target as an absolute path; it means one in the root.
	target, err := cleanName(strings.TrimLeft(hdr.Linkname, "/"))
	if err != nil || target == "." {
		return badEntry("the hard link %q has the target %q", hdr.Name, hdr.Linkname)
	}
	dirName, targetBase := path.Split(target)
	from, err := u.tree.lookup(path.Join(u.prefix, path.Clean(dirName)), false)
	if err == unix.ENOENT {
		return badEntry("the hard link %q names %q, which the archive does not have", hdr.Name, hdr.Linkname)
	}
	if err != nil {
		return err
	}
	var src, dst unix.Stat_t
	if err := unix.Fstatat(from.fd, targetBase, &src, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return badEntry("the hard link %q names %q, which the archive does not have", hdr.Name, hdr.Linkname)
		}
		return err
	}
	if src.Mode&unix.S_IFMT == unix.S_IFDIR {
		return badEntry("the hard link %q names the directory %q", hdr.Name, hdr.Linkname)
	}
	if unix.Fstatat(parent.fd, base, &dst, unix.AT_SYMLINK_NOFOLLOW) == nil && dst.Ino == src.Ino && dst.Dev == src.Dev {
		return nil // linked already, or a link to itself
	}
	return u.replacing(parent, base, hdr, func() error {
		return unix.Linkat(from.fd, targetBase, parent.fd, base, 0)
	})
}
