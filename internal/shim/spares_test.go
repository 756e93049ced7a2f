package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// spareDirs are the directories of this shim's spares, in every hierarchy.
func (s *shimTest) spareDirs() (dirs []string) {
	for _, file := range cgroup.New(s.cgroup).ProcsFiles() {
		list, _ := filepath.Glob(filepath.Join(filepath.Dir(file), sparePrefix(s.root)+"*"))
		dirs = append(dirs, list...)
	}
	return dirs
}

// withSpares starts a container and waits until all spares are like it. It returns
// the inodes of their directories for devices.
func (s *shimTest) withSpares(change func(*specs.Spec)) map[uint64]bool {
	s.Helper()
	if cgroup.Detect() == cgroup.Unified {
		s.Skip("cgroup v2 renames nothing")
	}
	r := s.sleeper(change)
	rules, _ := s.cgroupOf(s.start(r).Pid, s.path(r))
	all := spareCgroups * len(cgroup.New(s.cgroup).ProcsFiles())
	inodes := map[uint64]bool{}
	waitFor(s, "spare cgroups", func() bool {
		clear(inodes)
		dirs := s.spareDirs()
		for _, d := range dirs {
			if b, err := os.ReadFile(filepath.Join(d, "devices.list")); err == nil && string(b) == rules {
				inodes[s.inode(d)] = true
			}
		}
		return len(dirs) == all && len(inodes) == spareCgroups
	})
	return inodes
}

func (s *shimTest) inode(dir string) uint64 {
	s.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		s.Fatal(err)
	}
	return st.Ino
}

// sleeper is a container that waits, changed by change.
func (s *shimTest) sleeper(change func(*specs.Spec)) *StartRequest {
	r := s.request("")
	spec := s.spec("sh", "-c", "cat /proc/self/cgroup; exec sleep 1000")
	if change != nil {
		change(spec)
	}
	r.Spec = mustJSON(spec)
	return r
}

// cgroupOf is the cgroup of a request that was started, its device rules, and
// the inode of the directory those are in.
func (s *shimTest) cgroupOf(pid int, path string) (rules string, inode uint64) {
	s.Helper()
	seen, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(string(seen)) {
		if !strings.HasPrefix(line, "0::") && !strings.HasSuffix(line, ":"+path+"\n") {
			s.Errorf("the container is in %q, not in %s", line, path)
		}
	}
	dir := cgroup.New(path).Dir("devices")
	b, err := os.ReadFile(filepath.Join(dir, "devices.list"))
	if err != nil {
		s.Fatal(err)
	}
	return string(b), s.inode(dir)
}

func kvm() specs.LinuxDeviceCgroup {
	major, minor := int64(10), int64(232)
	return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"}
}

// A container is made of a spare that suits, and of no other: its rules are those
// of a container that was made without.
func TestSpares(t *testing.T) {
	s := newTest(t)
	withDevice := func(spec *specs.Spec) {
		spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{kvm()}}
	}
	elsewhere := func(spec *specs.Spec) {
		spec.Linux.CgroupsPath = s.cgroup + "/other/" + filepath.Base(spec.Linux.CgroupsPath)
	}
	for _, tc := range []struct {
		name   string
		change func(*specs.Spec)
		own    bool
		suits  bool
	}{
		{"the same again", nil, true, true},
		{"a limit", func(spec *specs.Spec) {
			spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(77))}}
		}, true, true},
		{"another device", withDevice, true, false},
		{"another parent", elsewhere, true, false},
		{"a parent that is not ours", nil, false, false},
	} {
		spares := s.withSpares(nil)
		r := s.sleeper(tc.change)
		r.OwnParent = tc.own
		path := s.path(r)
		rules, inode := s.cgroupOf(s.start(r).Pid, path)
		if spares[inode] != tc.suits {
			t.Errorf("%s: made of a spare is %v", tc.name, spares[inode])
		}
		plain := s.sleeper(tc.change)
		plain.OwnParent = false
		want, _ := s.cgroupOf(s.start(plain).Pid, s.path(plain))
		if rules != want {
			t.Errorf("%s: the device rules are %q, and %q without a spare", tc.name, rules, want)
		}
		waitFor(t, "its output", func() bool { return len(s.lines(r)) > 0 })
		for _, line := range s.lines(r) {
			if !strings.HasPrefix(line, "stdout:0::") && !strings.HasSuffix(line, ":"+path+"\n") {
				t.Errorf("%s: inside it is %q, not %s", tc.name, line, path)
			}
		}
		if tc.suits && tc.change != nil {
			if b, err := os.ReadFile(filepath.Join(cgroup.New(path).Dir("pids"), "pids.max")); err != nil || string(b) != "77\n" {
				t.Errorf("%s: pids.max is %q (%v)", tc.name, b, err)
			}
		}
	}
	s.withSpares(withDevice) // they follow what is started
}

// path is where the cgroup of a request is to be.
func (s *shimTest) path(r *StartRequest) string {
	s.Helper()
	var spec specs.Spec
	if err := json.Unmarshal(r.Spec, &spec); err != nil {
		s.Fatal(err)
	}
	return spec.Linux.CgroupsPath
}

// Spares are left by nobody: not by an io that is killed, nor by one that is
// upgraded, nor by one that ends (tearDown looks).
func TestSparesAreSwept(t *testing.T) {
	s := newTest(t)
	s.withSpares(nil)
	s.kill(func(i Info) int { return i.Pid })
	if _, err := s.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := s.spareDirs(); len(left) > 0 {
		t.Errorf("the io after one that was killed leaves %v", left)
	}
	s.withSpares(nil)
	if err := s.Upgrade(t.Context(), s.copyBinary(0)); err != nil {
		t.Fatal(err)
	}
	if left := s.spareDirs(); len(left) > 0 {
		t.Errorf("an upgrade leaves %v", left)
	}
	s.withSpares(nil)
}

// An idle engine holds no spares: no directories, no processes, no descriptors, no
// note.
func TestSparesExpire(t *testing.T) {
	s := newTest(t)
	s.withSpares(nil)
	// A shim that keeps spares for a moment only, with the container in it.
	if err := os.WriteFile(filepath.Join(s.root, spareLifeFile), []byte("300ms"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.kill(func(i Info) int { return i.Pid })
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := func() (n int) {
		list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", info.Pid))
		for _, e := range list {
			if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", info.Pid, e.Name())); to == "/" { // a detached mount of a cgroup
				n++
			}
		}
		return n
	}
	s.withSpares(nil)
	waitFor(t, "the spares' processes", func() bool {
		return len(spareProcesses(t, info.Pid)) == spareCgroups && open() > 0
	})
	waitFor(t, "the end of the spares", func() bool {
		return len(s.spareDirs()) == 0 && open() == 0 && len(spareProcesses(t, info.Pid)) == 0
	})
	waitFor(t, "the note to go", func() bool {
		_, err := os.Stat(filepath.Join(s.root, "spares"))
		return os.IsNotExist(err)
	})
}

// Two shims with one parent have each their own spares.
func TestSparesOfTwoShims(t *testing.T) {
	s, other := newTest(t), newTest(t)
	other.cgroup, other.n = s.cgroup, 1000
	s.withSpares(nil)
	other.withSpares(nil)
	theirs := other.spareDirs()
	s.kill(func(i Info) int { return i.Pid })
	if _, err := s.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := s.spareDirs(); len(left) > 0 {
		t.Errorf("spares are left: %v", left)
	}
	if still := other.spareDirs(); !slices.Equal(still, theirs) {
		t.Errorf("the other shim had %v, and has %v", theirs, still)
	}
	for _, one := range []*shimTest{s, other} {
		list, _ := one.List(t.Context())
		for _, st := range list {
			one.Signal(t.Context(), st.ID, "", syscall.SIGKILL, true)
		}
	}
}
