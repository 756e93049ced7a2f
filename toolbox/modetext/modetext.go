// Package modetext spells file modes as ls does.
package modetext

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Of spells the mode of a file as the kernel has it: "drwxr-xr-x".
func Of(mode uint32) string {
	types := map[uint32]string{unix.S_IFDIR: "d", unix.S_IFLNK: "l", unix.S_IFCHR: "c", unix.S_IFBLK: "b",
		unix.S_IFIFO: "p", unix.S_IFSOCK: "s"}
	t, ok := types[mode&unix.S_IFMT]
	if !ok {
		t = "-"
	}
	text := []byte(t + fs.FileMode(mode & 0o777).String()[1:])
	special := func(bit uint32, at int, set, unset byte) {
		if mode&bit == 0 {
			return
		}
		if text[at] == 'x' {
			text[at] = set
		} else {
			text[at] = unset
		}
	}
	special(unix.S_ISUID, 3, 's', 'S')
	special(unix.S_ISGID, 6, 's', 'S')
	special(unix.S_ISVTX, 9, 't', 'T')
	return string(text)
}
