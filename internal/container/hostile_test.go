package container

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A container may replace its /etc/passwd by a device. Outside of the container
// nothing keeps devices from being used, and some act when they are opened.
func TestPasswdThatIsADevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	node := filepath.Join(dir, "passwd")
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil { // /dev/zero
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, node, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	data, err := readInRoot(root, "passwd")
	if err != nil || data != nil {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	var event [4096]byte
	if n, err := unix.Read(watch, event[:]); err != unix.EAGAIN {
		t.Errorf("the device was opened (%d, %v)", n, err)
	}
	// What is no file at all is a container without users, and no error.
	for _, name := range []string{".", "missing", "passwd/below"} {
		if data, err := readInRoot(root, name); err != nil || data != nil {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}
