// Package topdir tells a file system that the directories within one have
// nothing to do with one another.
package topdir

import "golang.org/x/sys/unix"

const topdirFl = 0x00020000 // FS_TOPDIR_FL, chattr +T

// Mark sets the flag "top of directory hierarchies" on dir, where its file system
// is ext4. What is made below then goes to different parts of the disk.
//
// ext4 does not use the number of a deleted file again for a minute, and looks at
// each such number, one by one, when it makes the next file in the same part of
// the disk: with containers that come and go all in one part, that is soon most
// of what a start does. Where the mark cannot be set nothing else is lost.
func Mark(dir string) {
	var st unix.Statfs_t
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if unix.Fstatfs(fd, &st) != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		return
	}
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topdirFl == 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|topdirFl)
	}
}
