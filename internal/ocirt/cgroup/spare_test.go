package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// newSpare makes a spare beside c, which the test has to use up or discard.
func newSpare(t *testing.T, c *Cgroup, devices []specs.LinuxDeviceCgroup) *Spare {
	t.Helper()
	if Detect() == Unified {
		t.Skip("cgroup v2 renames nothing")
	}
	p := filepath.Dir(c.Path()) + "/.spare-" + filepath.Base(c.Path())
	s, err := NewSpare(p, devices)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := New(p); slices.ContainsFunc(left.dirs(), exists) {
			t.Errorf("the spare is left: %s", p)
			_ = left.Delete()
		}
	})
	return s
}

// inodes tells the directories of a cgroup from others of the same names.
func inodes(t *testing.T, c *Cgroup) (list []uint64) {
	t.Helper()
	for _, d := range c.dirs() {
		var st unix.Stat_t
		if err := unix.Stat(d, &st); err != nil {
			t.Fatalf("%s: %v", d, err)
		}
		list = append(list, st.Ino)
	}
	return list
}

// settings reads every file that says what a cgroup is, not what happened in it.
func settings(t *testing.T, c *Cgroup) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, d := range c.dirs() {
		entries, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := e.Name()
			if strings.Contains(name, "stat") || strings.Contains(name, "usage") || strings.Contains(name, "pressure") ||
				name == "net_prio.prioidx" { // its number
				continue
			}
			s, err := readFile(filepath.Join(d, name))
			if err != nil {
				s = fmt.Sprint("cannot be read: ", unwrapErrno(err))
			}
			all[filepath.Base(filepath.Dir(strings.TrimSuffix(d, c.path)+"/."))+"/"+name] = s
		}
	}
	return all
}

func unwrapErrno(err error) error {
	if p, ok := err.(*os.PathError); ok {
		return p.Err
	}
	return err
}

func somewhere() *specs.LinuxResources {
	return &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"},
			{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rw"},
		},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(17))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512))},
	}
}

// Nobody can tell a cgroup that was a spare from one that was not, and processes
// that join through the files the spare kept open are in it.
func TestSpareBecomes(t *testing.T) {
	c := newTest(t)
	res := somewhere()
	s := newSpare(t, c, res.Devices)
	was := inodes(t, s.cg)
	if !s.Suits(c.Path(), res) {
		t.Fatal("the spare does not suit the cgroup it was made for")
	}
	if err := c.CreateFrom(s, res); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if now := inodes(t, New(c.Path())); !slices.Equal(now, was) {
		t.Errorf("the directories are %v, those of the spare were %v", now, was)
	}
	plain := New(c.Path() + "-plain")
	if err := plain.Create(res); err != nil {
		t.Fatal(err)
	}
	defer plain.Delete()
	got, want := settings(t, c), settings(t, plain)
	if len(want) < 10 {
		t.Fatalf("only %d settings were read", len(want))
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %q, and %q without a spare", name, got[name], v)
		}
	}

	p := start(t, "echo")
	for _, file := range c.ProcsFiles() {
		f := s.Tasks(file)
		if filepath.Base(file) != "tasks" {
			continue // v2, of a hybrid machine
		}
		if f == nil {
			t.Fatalf("%s is not open", file)
		}
		if _, err := fmt.Fprint(f, p.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	text, err := readFile(fmt.Sprintf("/proc/%d/cgroup", p.Process.Pid))
	if err != nil || strings.Count(text, ":"+c.Path()+"\n") < len(s.tasks) {
		t.Errorf("the process is in %s (%v)", text, err)
	}
}

func TestSpareSuits(t *testing.T) {
	c := newTest(t)
	res := somewhere()
	s := newSpare(t, c, res.Devices)
	defer s.Discard()
	beside := filepath.Dir(c.Path()) + "/other"
	if !s.Suits(beside, &specs.LinuxResources{Devices: res.Devices}) {
		t.Error("it does not suit another cgroup of the same parent")
	}
	if s.Suits(c.Path()+"/below", res) || s.Suits("/other", res) {
		t.Error("it suits a cgroup of another parent")
	}
	if s.Suits(beside, nil) || s.Suits(beside, &specs.LinuxResources{Devices: res.Devices[:1]}) {
		t.Error("it suits other device rules")
	}
}

// A parent that hands down other processors than it did is another parent.
func TestSpareOfAnotherCpuset(t *testing.T) {
	c := newTest(t)
	dir, v2 := c.dir("cpuset")
	if dir == "" || v2 {
		t.Skip("this machine has no cpusets of v1")
	}
	all, err := readFile(filepath.Join(filepath.Dir(filepath.Dir(dir)), "cpuset.cpus"))
	if err != nil || strings.TrimSpace(all) == "0" {
		t.Skipf("there is no choice of processors: %q (%v)", all, err)
	}
	parent := New(filepath.Dir(c.Path()))
	if err := parent.Create(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}); err != nil {
		t.Fatal(err)
	}
	s := newSpare(t, c, nil)
	defer s.Discard()
	if !s.Suits(c.Path(), nil) {
		t.Error("the spare does not suit the cgroup it was made for")
	}
	if err := parent.put("cpuset", "cpuset.cpus", strings.TrimSpace(all)); err != nil {
		t.Fatal(err)
	}
	if s.Suits(c.Path(), nil) {
		t.Error("the spare suits although its parent has got more processors")
	}
}

// A spare cannot take the place of a cgroup that is there, and is gone then.
func TestSpareInTheWay(t *testing.T) {
	c := newTest(t)
	s := newSpare(t, c, nil)
	dirs := c.dirs()
	for _, d := range []string{filepath.Dir(dirs[len(dirs)-1]), dirs[len(dirs)-1]} {
		if err := os.Mkdir(d, 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	if err := c.CreateFrom(s, nil); err != nil {
		t.Fatal(err)
	}
	if s.Tasks(c.ProcsFiles()[0]) != nil {
		t.Error("the files of a spare that was not used are still open")
	}
	plain := New(c.Path() + "-plain")
	if err := plain.Create(nil); err != nil {
		t.Fatal(err)
	}
	defer plain.Delete()
	if got, want := read(t, c, "devices", "devices.list", "cgroup.type"), read(t, plain, "devices", "devices.list", "cgroup.type"); got != want {
		t.Errorf("the device rules are %q, want %q", got, want)
	}
}

func TestSpareRefusedLimit(t *testing.T) {
	c := newTest(t)
	s := newSpare(t, c, nil)
	if err := c.CreateFrom(s, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}); err == nil {
		t.Fatal("processor 4000 was accepted")
	}
	s.Close()
	if slices.ContainsFunc(c.dirs(), exists) {
		t.Error("the cgroup is left")
	}
}

// What is swept are one owner's spares, and nothing else of the parent.
func TestSweepSpares(t *testing.T) {
	c := newTest(t)
	s := newSpare(t, c, nil)
	defer s.Close()
	others, err := NewSpare(filepath.Dir(c.Path())+"/.other-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer others.Discard()
	if err := c.Create(nil); err != nil {
		t.Fatal(err)
	}
	if err := SweepSpares(filepath.Dir(c.Path()), ".spare-"); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(s.cg.dirs(), exists) {
		t.Error("the spare is left")
	}
	for _, d := range append(others.cg.dirs(), c.dirs()...) {
		if !exists(d) {
			t.Errorf("%s was swept", d)
		}
	}
	if err := SweepSpares("/gantry-test-never", ".spare-"); err != nil {
		t.Errorf("a parent that is gone: %v", err)
	}
}
