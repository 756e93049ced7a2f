package ocirt

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// What a person would lose: whoever gets below the root of a container would
// find the host there. Nothing is there.
func TestBaseIsEmpty(t *testing.T) {
	f, err := base()
	if err != nil {
		t.Fatal(err)
	}
	p := &spawn.Program{}
	p.Sys(unix.SYS_SETNS, spawn.Int(int(f.Fd())), spawn.Int(unix.CLONE_NEWNS))
	p.Barrier(1)
	p.Sys(unix.SYS_EXIT_GROUP, spawn.Int(0)).Last()
	var table, entries string
	c, err := p.Start(context.Background(), &spawn.Attr{Keep: []int{int(f.Fd())}, Barrier: func(c *spawn.Child, _ int) error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.Pid))
		table = string(b)
		if err != nil {
			return err
		}
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", c.Pid))
		entries = fmt.Sprint(list)
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.PidFD.Close()
	_, _ = unix.Wait4(c.Pid, nil, 0, nil)
	if n := strings.Count(table, "\n"); n != 1 || !strings.Contains(table, " ro,") || !strings.Contains(table, "tmpfs") || entries != "[]" {
		t.Errorf("the base has %d mounts and holds %s:\n%s", n, entries, table)
	}
}

// Programs find their mounts by this table: the root comes first, and none of the
// host's is in it.
func TestMountTableOnBase(t *testing.T) {
	out, code := run(t, newContainer(t, "cat /proc/self/mountinfo"))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) < 5 {
		t.Fatalf("exit %d: %s", code, out)
	}
	for i, line := range lines {
		at := strings.Fields(line)[4]
		if (i == 0) != (at == "/") {
			t.Errorf("line %d is of %s", i, at)
		}
		if at != "/" && !strings.HasPrefix(at, "/proc") && !strings.HasPrefix(at, "/dev") && !strings.HasPrefix(at, "/sys") {
			t.Errorf("%s is mounted in the container", at)
		}
	}
}

// Containers in containers need pivot_root and unmounting to work as on a host.
func TestPivotInsideContainer(t *testing.T) {
	c := newContainer(t, "mkdir -p /new && mount -t tmpfs x /new && mkdir /new/old /new/bin && cp /bin/busybox /new/bin/ && "+
		"cd /new && pivot_root . old && ./bin/busybox umount -l /old && ./bin/busybox ls /")
	caps := append(c.Spec.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
	c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	out, code := run(t, c)
	if code != 0 || strings.Join(strings.Fields(out), " ") != "bin old" {
		t.Errorf("exit %d: %q", code, out)
	}
}
