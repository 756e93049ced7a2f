package layer

import (
	"archive/tar"
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxOpenDirs = 64
	maxLinks    = 40   // as the kernel's own limit, path_resolution(7)
	maxPath     = 4096 // PATH_MAX
)

// errEscape is returned when a path leads above the root.
var errEscape = errors.New("leads out of the root directory")

// dir is one directory of the tree, by its place in it.
type dir struct {
	path    string // clean, relative to the root, free of symbolic links; "." is the root
	fd      int    // -1 while not open
	used    uint64 // clock of the tree at the last use
	pins    int    // while above zero the descriptor stays open
	made    bool   // by this unpacking
	setgid  bool   // what is created here inherits the group
	pending *tar.Header
}

// tree resolves the paths of an archive to directories beneath a root. A
// symbolic link in the middle of a path is followed inside the root, as a
// process that has the tree as its root would follow it, except that climbing
// above the root is refused unless clamp is set. It keeps the directories used last open.
type tree struct {
	root    *dir
	real    map[string]*dir // by dir.path
	logical map[string]*dir // by the path an archive used, through symbolic links
	open    []*dir
	clock   uint64
	// whiteouts makes a directory created over an overlay whiteout opaque.
	whiteouts bool
	// clamp lets a link climb above the root and stay there, as the kernel does
	// for a running process, instead of refusing it.
	clamp bool
	umask uint32
}

func newTree(rootfd int) (*tree, error) {
	t := &tree{
		root:    &dir{path: ".", fd: rootfd, pins: 1},
		real:    map[string]*dir{},
		logical: map[string]*dir{},
	}
	var st unix.Stat_t
	if err := unix.Fstat(rootfd, &st); err != nil {
		return nil, err
	}
	t.root.setgid = st.Mode&unix.S_ISGID != 0
	t.real["."] = t.root
	return t, nil
}

// close closes every descriptor but the root's.
func (t *tree) close() {
	for _, d := range t.open {
		unix.Close(d.fd)
		d.fd = -1
	}
	t.open = nil
}

// lookup returns the open directory of a clean relative path, resolving
// symbolic links; with create, what is missing is made. Its descriptor is valid
// until the next call unless pinned.
func (t *tree) lookup(name string, create bool) (*dir, error) {
	if d := t.logical[name]; d != nil {
		return d, t.ensureOpen(d)
	}
	links := 0
	d, err := t.walk(name, create, &links)
	if err != nil {
		return nil, err
	}
	t.logical[name] = d
	return d, nil
}

func (t *tree) walk(name string, create bool, links *int) (*dir, error) {
	if name == "." {
		return t.root, nil
	}
	if d := t.logical[name]; d != nil {
		return d, t.ensureOpen(d)
	}
	parent, base := path.Split(name)
	d, err := t.walk(path.Clean(parent), create, links)
	if err != nil {
		return nil, err
	}
	return t.step(d, base, create, links)
}

// step enters base beneath d.
func (t *tree) step(d *dir, base string, create bool, links *int) (*dir, error) {
	full := path.Join(d.path, base)
	if known := t.real[full]; known != nil {
		return known, t.ensureOpen(known)
	}
	fd, err := openat(d.fd, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch err {
	case nil:
		return t.adopt(full, fd, false)
	case unix.ENOENT:
		if !create {
			return nil, err
		}
		return t.mkdir(d, base, 0o755)
	case unix.ENOTDIR, unix.ELOOP:
	default:
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	if create && t.whiteouts && isWhiteout(&st) {
		return t.overWhiteout(d, base, 0o755)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil, unix.ENOTDIR
	}
	if *links++; *links > maxLinks {
		return nil, unix.ELOOP
	}
	target, err := readlinkat(d.fd, base)
	if err == unix.EINVAL { // a running container put something else there
		return nil, unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	return t.follow(d, target, create, links)
}

// follow resolves the target of a symbolic link found in d.
func (t *tree) follow(d *dir, target string, create bool, links *int) (*dir, error) {
	if target == "" || len(target) > maxPath {
		return nil, unix.ENOENT
	}
	if target[0] == '/' {
		d = t.root
	}
	var err error
	for _, part := range strings.Split(target, "/") {
		switch part {
		case "", ".":
			continue
		case "..":
			if d.path == "." {
				if t.clamp {
					continue
				}
				return nil, errEscape
			}
			noLinks := maxLinks // the path of a dir is free of them
			d, err = t.walkReal(path.Dir(d.path), &noLinks)
		default:
			d, err = t.step(d, part, create, links)
		}
		if err != nil {
			return nil, err
		}
	}
	return d, t.ensureOpen(d)
}

// walkReal opens a directory by its link-free path. A link that appeared there
// since is not followed.
func (t *tree) walkReal(name string, links *int) (*dir, error) {
	if d := t.real[name]; d != nil {
		return d, t.ensureOpen(d)
	}
	d, err := t.walkReal(path.Dir(name), links)
	if err != nil {
		return nil, err
	}
	return t.step(d, path.Base(name), false, links)
}

func (t *tree) mkdir(d *dir, base string, mode uint32) (*dir, error) {
	if err := unix.Mkdirat(d.fd, base, mode); err != nil {
		return nil, err
	}
	fd, err := openat(d.fd, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if mode&t.umask != 0 {
		if err := unix.Fchmod(fd, mode); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return t.adopt(path.Join(d.path, base), fd, true)
}

// overWhiteout makes a directory where this layer deleted something: what lower
// layers have there must stay hidden.
func (t *tree) overWhiteout(d *dir, base string, mode uint32) (*dir, error) {
	if err := unix.Unlinkat(d.fd, base, 0); err != nil {
		return nil, err
	}
	made, err := t.mkdir(d, base, mode)
	if err != nil {
		return nil, err
	}
	return made, unix.Fsetxattr(made.fd, opaqueXattr, []byte("y"), 0)
}

// adopt takes over an open descriptor.
func (t *tree) adopt(full string, fd int, made bool) (*dir, error) {
	d := &dir{path: full, fd: fd, made: made}
	if !made {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return nil, err
		}
		d.setgid = st.Mode&unix.S_ISGID != 0
	}
	t.real[full] = d
	t.track(d)
	return d, nil
}

// ensureOpen opens d again if its descriptor was given up.
func (t *tree) ensureOpen(d *dir) error {
	t.clock++
	d.used = t.clock
	if d.fd >= 0 {
		return nil
	}
	fd, err := unix.Openat2(t.root.fd, d.path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	d.fd = fd
	t.track(d)
	return nil
}

// track counts d among the open directories and closes the one unused longest
// when there are too many.
func (t *tree) track(d *dir) {
	t.clock++
	d.used = t.clock
	if len(t.open) < maxOpenDirs {
		t.open = append(t.open, d)
		return
	}
	oldest := -1
	for i, o := range t.open {
		if o.pins == 0 && (oldest < 0 || o.used < t.open[oldest].used) {
			oldest = i
		}
	}
	unix.Close(t.open[oldest].fd)
	t.open[oldest].fd = -1
	t.open[oldest] = d
}

// forget drops what is known of a directory that was removed, and of all below.
// Paths that led through it, or through a link that was removed, are resolved
// anew.
func (t *tree) forget(full string) {
	clear(t.logical)
	for p, d := range t.real {
		if p != full && !strings.HasPrefix(p, full+"/") {
			continue
		}
		delete(t.real, p)
		if d.fd < 0 {
			continue
		}
		unix.Close(d.fd)
		d.fd = -1
		for i, o := range t.open {
			if o == d {
				t.open = append(t.open[:i], t.open[i+1:]...)
				break
			}
		}
	}
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func readlinkat(dirfd int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}
