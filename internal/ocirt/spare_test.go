package ocirt

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// withSpare gives the container a spare.
func withSpare(t *testing.T, c *Container) *Spare {
	t.Helper()
	if cgroup.Detect() == cgroup.Unified {
		t.Skip("cgroup v2 renames nothing")
	}
	dropNamespace(c.Spec, specs.NetworkNamespace) // as engines do, who pass one
	s, err := NewSpare(t.Context(), c.Base, "/"+c.ID+"-spare", c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	c.Spare = func(path string, spec *specs.Spec) *Spare {
		if suits, _ := s.Suits(path, spec); !suits {
			t.Errorf("the spare does not suit %s", path)
		}
		return s
	}
	return s
}

// startSpare starts a container that has a spare and returns its pid.
func startSpare(t *testing.T, c *Container) int {
	t.Helper()
	p, err := Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := startTime(p.Pid); err != nil || now != p.StartTime {
		t.Errorf("the process began at %d, not %d (%v)", now, p.StartTime, err)
	}
	if code := wait(t, p).ExitStatus(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if err := p.Cgroup.Delete(); err != nil {
		t.Error(err)
	}
	return p.Pid
}

// The process that waits in a spare becomes the container's, if it is one as most
// are; if not, or when it is gone, the container is started all the same, and the
// process is not there any more (TestMain looks for the cgroup it was in).
func TestSpareProcess(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Container, *Spare)
		used   bool
	}{
		"as most":        {func(*Container, *Spare) {}, true},
		"host's pids":    {func(c *Container, _ *Spare) { dropNamespace(c.Spec, specs.PIDNamespace) }, false},
		"without a base": {func(c *Container, _ *Spare) { c.Base = nil }, false},
		"killed": {func(_ *Container, s *Spare) {
			unix.Kill(s.Pid(), unix.SIGKILL)
			unix.Waitid(unix.P_PID, s.Pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		}, false},
		"too large a program": {func(c *Container, _ *Spare) {
			c.Spec.Process.Env = append(c.Spec.Process.Env, "BIG="+strings.Repeat("x", 100_000), "MORE="+strings.Repeat("x", 100_000))
		}, false},
		"cgroup is there": {func(c *Container, _ *Spare) {
			if err := cgroup.New("/" + c.ID).Create(nil); err != nil {
				t.Fatal(err)
			}
		}, false},
		"part of a cgroup is there": {func(c *Container, _ *Spare) {
			dir := cgroup.New("/" + c.ID).Dir("pids")
			if dir == "" {
				t.Skip("no controller named pids")
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ct := newContainer(t, "true")
			s := withSpare(t, ct)
			pid := s.Pid()
			c.change(ct, s)
			if got := startSpare(t, ct); (got == pid) != c.used {
				t.Errorf("the container's process is %d, the spare's %d", got, pid)
			}
			if unix.Kill(pid, 0) == nil {
				t.Error("the spare's process is still there")
			}
		})
	}
}

// What Record does comes before the cgroup, and what fails there fails the start.
func TestRecordBeforeCgroup(t *testing.T) {
	for name, spare := range map[string]bool{"spare": true, "none": false} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, "true")
			if spare {
				withSpare(t, c)
			}
			recorded := 0
			c.Record = func() error {
				recorded++
				if cgroup.New("/" + c.ID).Exists() {
					t.Error("there is a cgroup already")
				}
				return nil
			}
			if startSpare(t, c); recorded != 1 {
				t.Errorf("recorded %d times", recorded)
			}
			c = newContainer(t, "true")
			if spare {
				withSpare(t, c)
			}
			c.Record = func() error { return errors.New("no room") }
			if _, err := Start(context.Background(), c); err == nil || err.Error() != "no room" {
				t.Errorf("error %v", err)
			}
			if cgroup.New("/"+c.ID).Exists() || cgroup.New("/"+c.ID+"-spare").Exists() {
				t.Error("a cgroup is left")
			}
		})
	}
}

// A limit that cannot be set fails a start, in a spare's process too, and leaves
// nothing.
func TestSpareWithWrongLimit(t *testing.T) {
	c := newContainer(t, "true")
	withSpare(t, c)
	c.Spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}
	if _, err := Start(context.Background(), c); err == nil {
		t.Error("a container has processor 4000")
	}
	if cgroup.New("/"+c.ID).Exists() || cgroup.New("/"+c.ID+"-spare").Exists() {
		t.Error("a cgroup is left")
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

func dropNamespace(spec *specs.Spec, t specs.LinuxNamespaceType) {
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}
