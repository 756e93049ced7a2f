//go:build unix

package copytree

import (
	"io/fs"
	"syscall"
)

// inodeOf identifies a file that has more than one name.
func inodeOf(info fs.FileInfo) (inode, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return inode{}, false
	}
	return inode{uint64(st.Dev), st.Ino}, true
}
