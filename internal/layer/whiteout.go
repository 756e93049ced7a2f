package layer

import (
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// whiteout carries out an entry named .wh.*, which stands in parent.
func (u *unpacker) whiteout(parent *dir, base string) error {
	if base == whiteoutOpaque {
		return u.opaque(parent)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil // bookkeeping of AUFS, which layer.md has readers ignore
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return badEntry("the whiteout %q in %q names nothing that can be deleted", base, parent.path)
	}
	if u.opts.Whiteouts == Remove {
		return u.clear(parent, name)
	}
	err := unix.Mknodat(parent.fd, name, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return err
	}
	// A whiteout is about lower layers only. What this layer has under the same
	// name stays; a directory must not show what is beneath it.
	d, err := u.tree.step(parent, name, false, new(int))
	if err != nil || d.path != path.Join(parent.path, name) {
		return nil // a file, or a link to somewhere: hides what is below anyway
	}
	return u.opaque(d)
}

func (u *unpacker) opaque(d *dir) error {
	if u.opts.Whiteouts == Overlay {
		return unix.Fsetxattr(d.fd, opaqueXattr, []byte("y"), 0)
	}
	d.pins++
	defer func() { d.pins-- }()
	names, err := readNames(d.fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := u.clear(d, name); err != nil {
			return err
		}
	}
	return nil
}

// clear removes name from parent except for what this archive put there.
func (u *unpacker) clear(parent *dir, name string) error {
	full := path.Join(parent.path, name)
	_, ours := u.unpacked[full]
	var st unix.Stat_t
	err := unix.Fstatat(parent.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !ours && !(isDir && u.madeBelow(full)) {
		return u.remove(parent, name, isDir)
	}
	if !isDir {
		return nil
	}
	d, err := u.tree.step(parent, name, false, new(int))
	if err != nil {
		return err
	}
	return u.opaque(d)
}

// madeBelow tells whether this archive made anything below a directory that it
// has no entry for.
func (u *unpacker) madeBelow(full string) bool {
	if d := u.tree.real[full]; d != nil && d.made {
		return true
	}
	for p := range u.unpacked {
		if strings.HasPrefix(p, full+"/") {
			return true
		}
	}
	return false
}

// removeTree deletes name and everything below it without following links.
func removeTree(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeTree(fd, n); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// readNames lists a directory without disturbing the position of fd.
func readNames(fd int) ([]string, error) {
	again, err := openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}
