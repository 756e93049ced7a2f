package layer

import (
	"archive/tar"
	"encoding/base64"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const specialBits = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX

// currentUmask reads the mask new files are created with; setting it would
// affect the whole process.
func currentUmask() uint32 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32)
			if err == nil {
				return uint32(mask)
			}
		}
	}
	return 0o777 // unknown: always set the mode
}

// needsChown tells whether something just made in parent has the wrong owner.
func (u *unpacker) needsChown(parent *dir, hdr *tar.Header) bool {
	return parent.setgid || hdr.Uid != u.owner.UID || hdr.Gid != u.owner.GID
}

// fileAttributes finishes a regular file made with the permissions of hdr.
func (u *unpacker) fileAttributes(fd int, parent *dir, hdr *tar.Header) error {
	chown := u.needsChown(parent, hdr)
	if chown {
		if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
			return err
		}
	}
	mode := uint32(hdr.Mode) & 0o7777
	if mode&specialBits != 0 || mode&u.umask != 0 || !parent.made {
		if err := unix.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	if err := setXattrs(fd, hdr); err != nil {
		return err
	}
	return setTimes(fd, hdr)
}

// finishDirs gives the directories their attributes, last because making
// entries in them changes their times, and because an inherited group or ACL
// must not reach what the archive describes itself.
func (u *unpacker) finishDirs() error {
	var pending []*dir
	for _, d := range u.tree.real {
		if d.pending != nil {
			pending = append(pending, d)
		}
	}
	// Deepest first: a directory may lose the permission to be entered.
	slices.SortFunc(pending, func(a, b *dir) int { return strings.Compare(b.path, a.path) })
	for _, d := range pending {
		if err := u.tree.ensureOpen(d); err != nil {
			return u.explain(d.path, err)
		}
		if err := dirAttributes(d.fd, d.pending); err != nil {
			return u.explain(d.path, err)
		}
	}
	return nil
}

func dirAttributes(fd int, hdr *tar.Header) error {
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return err
	}
	if err := setXattrs(fd, hdr); err != nil {
		return err
	}
	return setTimes(fd, hdr)
}

// attributes finishes a symbolic link, device or fifo, none of which may be
// opened.
func (u *unpacker) attributes(parent *dir, base string, hdr *tar.Header) error {
	if u.needsChown(parent, hdr) {
		if err := unix.Fchownat(parent.fd, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	// fchmodat(2) follows links. Nothing can put one here in a fresh tree; in
	// the tree of a running container, going through the descriptor of the
	// inode itself keeps that true.
	if hdr.Typeflag != tar.TypeSymlink || hasXattrs(hdr) {
		if err := nodeAttributes(parent.fd, base, hdr); err != nil {
			return err
		}
	}
	ts := times(hdr)
	return unix.UtimesNanoAt(parent.fd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func nodeAttributes(dirfd int, base string, hdr *tar.Header) error {
	fd, err := openat(dirfd, base, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if hdr.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(self, uint32(hdr.Mode)&0o7777); err != nil {
			return err
		}
	}
	return eachXattr(hdr, func(name string, value []byte) error {
		return unix.Setxattr(self, name, value, 0)
	})
}

func setTimes(fd int, hdr *tar.Header) error {
	ts := times(hdr)
	return unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH)
}

// times gives access and modification time for utimensat(2).
func times(hdr *tar.Header) [2]unix.Timespec {
	atime := hdr.AccessTime
	if atime.IsZero() {
		atime = hdr.ModTime
	}
	return [2]unix.Timespec{timespec(atime), timespec(hdr.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	var ts unix.Timespec
	ts.Sec = t.Unix()
	ts.Nsec = int64(t.Nanosecond())
	return ts
}

func setXattrs(fd int, hdr *tar.Header) error {
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	return eachXattr(hdr, func(name string, value []byte) error {
		return unix.Fsetxattr(fd, name, value, 0)
	})
}

func hasXattrs(hdr *tar.Header) bool {
	found := false
	eachXattr(hdr, func(string, []byte) error { found = true; return nil })
	return found
}

// eachXattr calls set for every extended attribute of an entry but those of this
// machine: an archive has no say there.
// What the file system cannot keep, or this process may not set, is dropped as
// tar and Docker do.
func eachXattr(hdr *tar.Header, set func(name string, value []byte) error) error {
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPAX)
		data := []byte(value)
		if !ok {
			if name, data, ok = libarchiveXattr(key, value); !ok {
				continue
			}
		}
		if isLocal(name) {
			continue
		}
		err := set(name, data)
		if err != nil && err != unix.ENOTSUP && err != unix.EPERM {
			return err
		}
	}
	return nil
}

// libarchiveXattr decodes an attribute as bsdtar writes it; bsdtar writes the
// SCHILY form as well, which wins where the name is not encoded.
func libarchiveXattr(key, value string) (string, []byte, bool) {
	name, ok := strings.CutPrefix(key, libarchivePAX)
	if !ok {
		return "", nil, false
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return "", nil, false
	}
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	return name, data, err == nil
}
