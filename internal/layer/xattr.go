package layer

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// isLocal tells which extended attributes belong to this machine and neither
// come from an archive nor get into one: the books of overlayfs, SELinux labels.
func isLocal(name string) bool {
	return strings.HasPrefix(name, overlayXattrs) || strings.HasPrefix(name, "user.overlay.") || name == "security.selinux"
}

// Xattrs reads the extended attributes of an open file, of any kind, without
// those that belong to this machine; fd may be opened with O_PATH.
func Xattrs(fd int) (map[string]string, error) {
	self := "/proc/self/fd/" + strconv.Itoa(fd) // the f*xattr calls refuse O_PATH
	var small [512]byte
	buf := small[:]
	n, err := unix.Listxattr(self, buf)
	if err == unix.ERANGE {
		buf = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = unix.Listxattr(self, buf)
	}
	if err == unix.ENOTSUP || (err == nil && n == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	var value []byte
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if isLocal(name) {
			continue
		}
		if value == nil {
			value = make([]byte, 64<<10) // XATTR_SIZE_MAX
		}
		n, err := unix.Getxattr(self, name, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[name] = string(value[:n])
	}
	return found, nil
}
