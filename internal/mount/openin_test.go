package mount

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What a person would lose: a start or a copy, now and then, to another container
// that is mounted or removed at the same moment.
func TestOpenInWhileOthersMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a"), 0o755))
	must(t, os.Symlink("a/../a/../a/../a/../a/../a/../a/../a", filepath.Join(dir, "link")))
	root, err := os.Open(dir)
	must(t, err)
	defer root.Close()
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		stopped <- inPrivate(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if err := unix.Mount("tmpfs", filepath.Join(dir, "a"), "tmpfs", 0, ""); err != nil {
					return err
				}
				if err := unix.Unmount(filepath.Join(dir, "a"), 0); err != nil {
					return err
				}
			}
		})
	}()
	for range 20000 {
		fd, err := OpenIn(int(root.Fd()), "link", unix.O_PATH)
		if err != nil {
			t.Error(err)
			break
		}
		unix.Close(fd)
	}
	close(stop)
	must(t, <-stopped)
}

// A container that renames and renames could keep the daemon or the shim looking
// for a path of another one until it is killed.
func TestOpenInGivesUp(t *testing.T) {
	if fd, err := undisturbed(func() (int, error) { return -1, unix.EAGAIN }); fd != -1 || err != unix.EAGAIN {
		t.Errorf("descriptor %d, error %v", fd, err)
	}
}
