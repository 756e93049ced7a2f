package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"
)

// A container that asks for propagation its source cannot give would wait in
// vain for what is mounted there.
func TestPropagation(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skip("cannot mount:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	source := filepath.Join(dir, "below")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		on    uintptr
		asked mount.Propagation
		ok    bool
	}{
		{unix.MS_PRIVATE, mount.PropagationRPrivate, true},
		{unix.MS_PRIVATE, mount.PropagationRShared, false},
		{unix.MS_PRIVATE, mount.PropagationSlave, false},
		{unix.MS_SHARED, mount.PropagationShared, true},
		{unix.MS_SHARED, mount.PropagationRSlave, true},
	} {
		if err := unix.Mount("", dir, "", test.on, ""); err != nil {
			t.Fatal(err)
		}
		err := canPropagate(&Mount{Source: source, Propagation: test.asked})
		if test.ok != (err == nil) {
			t.Errorf("%s on %#x: %v", test.asked, test.on, err)
		}
		if err != nil && !strings.Contains(err.Error(), "is mounted on "+dir) {
			t.Errorf("%s: %v", test.asked, err)
		}
	}
}
