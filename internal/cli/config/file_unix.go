//go:build unix

package config

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockDir makes the directory when it is absent and keeps others of us out of
// it, so that of two logins at once neither is lost.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		// File systems without locks do without.
		if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return func() { d.Close() }, nil
		}
	}
}

// sameOwner gives f the mode and, where that is allowed, the owner of another
// file.
func sameOwner(f *os.File, of fs.FileInfo) error {
	if st, ok := of.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(st.Uid), int(st.Gid)) // only root may, and only root needs to
	}
	return f.Chmod(of.Mode().Perm())
}
