package ocirt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Protect makes this program one that its containers cannot write to: it
// executes it again through a mount of its own, read-only and attached nowhere.
// It has to be called before anything else is done; it returns when the program
// is protected, or why it cannot be.
//
// A child is this program until its execve, and may be told by an image to
// execute /proc/self/exe, or a script that names it as its interpreter. Then a
// process of the container is this program, with its file in reach of the
// others (CVE-2019-5736). Through this mount it can be read, but never opened to
// be written: the mount belongs to no namespace any more in which it could be
// made writable.
func Protect() error {
	var st unix.Statfs_t
	if err := unix.Statfs("/proc/self/exe", &st); err != nil {
		return fmt.Errorf("cannot look at the own program: %w", err)
	}
	before := os.Getenv(protectEnv)
	os.Unsetenv(protectEnv)
	if st.Flags&unix.ST_RDONLY != 0 {
		if before != "" {
			protected = before
			// It was executed by the number of a descriptor.
			_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(before)), 0)
		}
		return nil
	}
	if before != "" {
		return errors.New("cannot protect the own program: it is writable through a read-only mount")
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot look at the own program: %w", err)
	}
	// The directory, so that the program keeps its name.
	dir, err := unix.OpenTree(unix.AT_FDCWD, filepath.Dir(exe), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot protect the own program: %w", err)
	}
	defer unix.Close(dir)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(dir, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("cannot protect the own program: %w", err)
	}
	fd, err := unix.Openat(dir, filepath.Base(exe), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot protect the own program: %w", err)
	}
	defer unix.Close(fd)
	if !sameFile(fd) {
		return fmt.Errorf("cannot protect the own program: %s is another one by now", exe)
	}
	err = syscall.Exec("/proc/self/fd/"+strconv.Itoa(fd), os.Args, append(os.Environ(), protectEnv+"="+exe))
	return fmt.Errorf("cannot execute the own program: %w", err)
}

// protectEnv is the path of the program that executed itself again, and keeps
// Protect from doing it for ever.
const protectEnv = "GANTRY_PROTECTED"

var protected string // that path, in the program that is protected

// Program is the path of this program. The kernel tells that of a protected one
// as it is in the mount nobody else sees.
func Program() string {
	if protected != "" {
		return protected
	}
	path, _ := os.Readlink("/proc/self/exe")
	return path
}

func sameFile(fd int) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat("/proc/self/exe", &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}
