package shim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// overlay gives a request a root file system of its own, as the engine does.
func (s *shimTest) overlay(r *StartRequest) {
	s.Helper()
	dir := filepath.Join(s.root, "trees", r.ID)
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			s.Fatal(err)
		}
	}
	r.Bundle = dir
	r.RootMounts = []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + s.rootfs, "upperdir=" + dir + "/upper", "workdir=" + dir + "/work",
	}}}
}

// capable gives a specification the capabilities named.
func capable(spec *specs.Spec, caps ...string) *specs.Spec {
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	return spec
}

// mountNamespaces is how many mount namespaces the shim holds open.
func (s *shimTest) mountNamespaces() (n int) {
	s.Helper()
	info, err := s.Info(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	fds := filepath.Join("/proc", strconv.Itoa(info.Pid), "fd")
	list, err := os.ReadDir(fds)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range list {
		if to, _ := os.Readlink(filepath.Join(fds, e.Name())); strings.HasPrefix(to, "mnt:") {
			n++
		}
	}
	return n
}

// newLingerTest is a shim that has run a container, and how many mount namespaces
// it holds since.
func newLingerTest(t *testing.T) (s *shimTest, before int) {
	t.Helper()
	s = newTest(t)
	s.follow()
	first := s.request("true")
	s.start(first)
	s.await(EventExit, first.ID, "")
	return s, s.mountNamespaces()
}

// The mounts of a container are taken apart after its exit was told, and then
// nothing holds them.
func TestLinger(t *testing.T) {
	s, before := newLingerTest(t)
	r := s.request("")
	r.Spec = mustJSON(capable(s.spec("sleep", "1000"), "CAP_KILL"))
	s.overlay(r)
	s.start(r)
	if n := s.mountNamespaces(); n != before+1 {
		t.Errorf("the shim holds %d mount namespaces while a container runs, and %d before", n, before)
	}
	if err := s.Signal(t.Context(), r.ID, "", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	s.await(EventExit, r.ID, "")
	for deadline := time.Now().Add(20 * time.Second); s.mountNamespaces() != before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the mount namespace of a container is still held")
		}
	}
}

// Of a container with something of the host's in it nothing is held.
func TestNoLinger(t *testing.T) {
	s, before := newLingerTest(t)
	r := s.request("")
	s.overlay(r)
	spec := capable(s.spec("sleep", "1000"), "CAP_KILL")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/volume", Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}})
	r.Spec = mustJSON(spec)
	s.start(r)
	if n := s.mountNamespaces(); n != before {
		t.Errorf("the shim holds %d mount namespaces, and %d before", n, before)
	}
	if err := s.Signal(t.Context(), r.ID, "", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	s.await(EventExit, r.ID, "")
}

func TestOwnMounts(t *testing.T) {
	base := func() (*StartRequest, *specs.Spec) {
		return &StartRequest{Bundle: "/b", RootMounts: []mount.Mount{{Type: "overlay"}}}, capable(&specs.Spec{
			Process: &specs.Process{},
			Mounts:  []specs.Mount{{Type: "proc"}, {Type: "tmpfs"}, {Type: "bind", Source: "/b/hosts"}},
			Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}}},
		}, "CAP_CHOWN")
	}
	for name, c := range map[string]struct {
		change func(*StartRequest, *specs.Spec)
		want   bool
	}{
		"default":            {func(*StartRequest, *specs.Spec) {}, true},
		"bind of the host":   {func(_ *StartRequest, s *specs.Spec) { s.Mounts[2].Source = "/bee" }, false},
		"image":              {func(_ *StartRequest, s *specs.Spec) { s.Mounts[1].Type = "overlay" }, false},
		"may mount":          {func(_ *StartRequest, s *specs.Spec) { capable(s, "CAP_SYS_ADMIN") }, false},
		"all capabilities":   {func(_ *StartRequest, s *specs.Spec) { s.Process.Capabilities = nil }, false},
		"another runtime":    {func(r *StartRequest, _ *specs.Spec) { r.Runtime = &Runtime{Name: "x"} }, false},
		"a root of others":   {func(r *StartRequest, _ *specs.Spec) { r.RootMounts = nil }, false},
		"joined namespace":   {func(_ *StartRequest, s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/mnt" }, false},
		"no mount namespace": {func(_ *StartRequest, s *specs.Spec) { s.Linux.Namespaces = nil }, false},
	} {
		r, spec := base()
		c.change(r, spec)
		if got := ownMounts(r, spec); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A shim that is told to end when the exit of its last process was told waits for
// what is still to be done, and leaves nothing.
func TestShutdownAfterExit(t *testing.T) {
	s := newTest(t)
	for i := range 2 * rounds(t) {
		s.follow()
		r := s.request("true")
		s.start(r)
		s.await(EventExit, r.ID, "")
		if i%2 == 0 {
			if err := s.Forget(t.Context(), r.ID, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if cgroup.New(s.path(r)).Exists() {
			t.Fatalf("round %d: a cgroup is left", i)
		}
		var err error
		if s.Client, err = Ensure(t.Context(), s.root, s.binary); err != nil {
			t.Fatal(err)
		}
	}
}

// An io that is killed when an exit was told, and forgotten, but its cgroup not yet
// removed, leaves that to the next.
func TestIOKilledAfterExit(t *testing.T) {
	s := newTest(t)
	for range 3 * rounds(t) {
		s.follow()
		r := s.request("true")
		s.start(r)
		s.await(EventExit, r.ID, "")
		if err := s.Forget(t.Context(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
		s.kill(func(i Info) int { return i.Pid })
		if _, err := s.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		if cgroup.New(s.path(r)).Exists() {
			t.Fatal("a cgroup is left")
		}
		if err := s.Forget(t.Context(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(s.root, "containers", r.ID)); !os.IsNotExist(err) {
			t.Fatalf("the state is left: %v", err)
		}
	}
}
