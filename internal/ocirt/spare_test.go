package ocirt

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// withSpare gives the container a cgroup made ahead.
func withSpare(t *testing.T, c *Container) {
	t.Helper()
	if cgroup.Detect() == cgroup.Unified {
		t.Skip("cgroup v2 renames nothing")
	}
	s, err := cgroup.NewSpare("/"+c.ID+"-spare", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Spare = func(path string, res *specs.LinuxResources) *cgroup.Spare {
		if !s.Suits(path, res) {
			t.Errorf("the spare does not suit %s", path)
		}
		return s
	}
}

// A container in a cgroup that was made ahead sees what it would in another, with
// the mounts of a base and with those of the host around it: it is at the root of
// its cgroups, it has the directories it is in, and no descriptor more.
func TestSpareCgroup(t *testing.T) {
	const script = "grep -v ':/$' /proc/self/cgroup | grep -v ^0:; ls /proc/self/fd; cat /sys/fs/cgroup/pids/cgroup.procs | head -1"
	for name, based := range map[string]bool{"base": true, "host": false} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, script)
			if !based {
				c.Base = nil
			}
			withSpare(t, c)
			expect(t, c, "0\n1\n2\n3\n1")
		})
	}
}

// A start that fails or is dropped leaves neither the spare nor its descriptors
// (TestMain looks).
func TestSpareOfFailedStart(t *testing.T) {
	c := newContainer(t, "")
	c.Spec.Process.Args = []string{"/nothing/there"}
	withSpare(t, c)
	if _, _, err := tryRun(t, c); err == nil {
		t.Error("nothing was executed")
	}
	c = newContainer(t, "")
	withSpare(t, c)
	p, err := Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	p.Drop()
	for _, id := range []string{c.ID, c.ID + "-spare"} {
		if _, err := cgroup.Load("/" + id); err == nil {
			t.Errorf("cgroup %s is left", id)
		}
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasSuffix(to, "/tasks") {
			t.Errorf("%s is open", to)
		}
	}
}
