package snapshot

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// backingFS names the file system of dir, for people.
func backingFS(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	switch uint64(st.Type) & 0xffffffff {
	case unix.EXT4_SUPER_MAGIC:
		return "extfs"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.F2FS_SUPER_MAGIC:
		return "f2fs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case 0x2fc12fc1:
		return "zfs"
	}
	return fmt.Sprintf("%#x", uint64(st.Type)&0xffffffff)
}

// spread has ext4 put each directory made in dir, and what comes to be below
// it, in a region of the disk of its own, as it does for those in its root.
// Without that one layer's inodes are looked for where those of another were
// just removed, which takes many times as long: such inodes are passed over one
// by one for some minutes. Other file systems have no such flag.
func spread(dir string) {
	const topdir = 0x20000 // FS_TOPDIR_FL
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	flags, err := unix.IoctlGetUint32(int(d.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topdir == 0 {
		_ = unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topdir))
	}
}
