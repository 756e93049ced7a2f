package ocirt

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// These tests are the list of holes runtimes have had; see the package comment.

// TestNoWayOutByDescriptor: CVE-2024-21626 entered /proc/self/fd/N as working
// directory and was on the host.
func TestNoWayOutByDescriptor(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "marker-on-the-host")
	writeFile(t, marker, "", 0o644)
	for fd := range 30 {
		c := newContainer(t, "ls -d ./../../../../.."+marker+" ../../../../.."+marker+" 2>/dev/null")
		c.Spec.Process.Cwd = "/proc/self/fd/" + itoa(int64(fd))
		out, _, err := tryRun(t, c)
		if err == nil && strings.Contains(out, "marker") {
			t.Errorf("descriptor %d leads to the host", fd)
		}
	}
}

// TestWorkingDirectoryOutside: a descriptor that does lead to the host, because
// the caller passed it, is no working directory.
func TestWorkingDirectoryOutside(t *testing.T) {
	c := newContainer(t, "pwd; ls")
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	high, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 50) // its number is kept
	if err != nil {
		t.Fatal(err)
	}
	dir := os.NewFile(uintptr(high), "dir")
	defer dir.Close()
	c.ExtraFiles = []*os.File{dir}
	c.Spec.Process.Cwd = "/proc/self/fd/" + itoa(int64(high))
	if out, _, err := tryRun(t, c); err == nil {
		t.Errorf("started outside of its root: %s", out)
	}
	c = newContainer(t, "")
	c.Spec.Hostname = ""
	c.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}} // or /proc/self would not be there
	p := background(t, c)
	proc := *c.Spec.Process
	proc.Cwd = "/proc/self/fd/" + itoa(int64(high))
	proc.Args = []string{"ls"}
	x, err := (&Exec{Pid: p.Pid, Spec: c.Spec, Process: &proc, ExtraFiles: []*os.File{dir}}).Start(context.Background())
	if err == nil {
		wait(t, x)
		t.Error("executed outside of the root")
	}
}

// TestTargetsStayInside: a volume another container writes to may contain
// symlinks anywhere (CVE-2019-16884, CVE-2021-30465).
func TestTargetsStayInside(t *testing.T) {
	victim := t.TempDir()
	for _, link := range []string{victim, "../../../../../../../../../.." + victim, "/proc/1/root" + victim} {
		c := newContainer(t, "true")
		volume := t.TempDir()
		if err := os.Symlink(link, filepath.Join(volume, "link")); err != nil {
			t.Fatal(err)
		}
		c.Spec.Mounts = append(c.Spec.Mounts,
			specs.Mount{Destination: "/vol", Type: "bind", Source: volume, Options: []string{"bind"}},
			specs.Mount{Destination: "/vol/link/made", Type: "tmpfs", Source: "tmpfs"},
		)
		c.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/vol/link/dev", Type: "c", Major: 1, Minor: 3}}
		_, _, _ = tryRun(t, c)
		if entries, _ := os.ReadDir(victim); len(entries) != 0 {
			t.Errorf("through %s something was made on the host: %v", link, entries)
		}
	}
}

// TestProcIsAProc: an image that makes /proc a symlink (CVE-2023-27561,
// CVE-2019-19921) must not get masks and read-only paths elsewhere.
func TestProcIsAProc(t *testing.T) {
	c := newContainer(t, "true")
	root := filepath.Join(c.Bundle, "rootfs")
	if err := os.Remove(filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/tmp", filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tryRun(t, c); err == nil || !strings.Contains(err.Error(), "/proc") {
		t.Errorf("started with a symlink for /proc: %v", err)
	}
}

// TestImageCannotFakeNull: what masks files is the host's /dev/null, whatever
// the image has in its /dev (CVE-2025-31133).
func TestImageCannotFakeNull(t *testing.T) {
	c := newContainer(t, "stat -c %t:%T /proc/keys")
	root := filepath.Join(c.Bundle, "rootfs")
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "dev/null")); err != nil {
		t.Fatal(err)
	}
	var mounts []specs.Mount
	for _, m := range c.Spec.Mounts {
		if m.Destination != "/dev" {
			mounts = append(mounts, m)
		}
	}
	c.Spec.Mounts = mounts
	expect(t, c, "1:3")
}

// TestProgramOfTheShimIsOutOfReach: no process of a container may open the
// binary the child was forked from (CVE-2019-5736).
func TestProgramOfTheShimIsOutOfReach(t *testing.T) {
	c := newContainer(t, "")
	l := []string{"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}
	c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: l, Effective: l, Permitted: l}
	// The first process looks at others while the second, held by a hook, is
	// still a copy of this test.
	p := background(t, c)
	second := newContainer(t, "true")
	for i := range second.Spec.Linux.Namespaces {
		if n := &second.Spec.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + itoa(int64(p.Pid)) + "/ns/pid"
		}
	}
	var out string
	second.StartFIFO = filepath.Join(second.Bundle, "fifo")
	if err := unix.Mkfifo(second.StartFIFO, 0o600); err != nil {
		t.Fatal(err)
	}
	q, err := Start(context.Background(), second)
	if err != nil {
		t.Fatal(err)
	}
	proc := *c.Spec.Process
	proc.Args = []string{"sh", "-c", "for p in /proc/[0-9]*; do test $p = /proc/1 || test $p = /proc/$$ || readlink $p/exe $p/root $p/cwd $p/fd/*; done 2>/dev/null; echo done"}
	out, _, err = execIn(t, c, p, &proc)
	if err != nil || out != "done\n" {
		t.Errorf("output %q, error %v", out, err)
	}
	if err := Release(second.StartFIFO); err != nil {
		t.Error(err)
	}
	wait(t, q)
	if err := q.Cgroup.Delete(); err != nil {
		t.Error(err)
	}
}

// TestTerminalIsNotAPath: a terminal for a further process comes from a devpts
// (CVE-2025-52565).
func TestTerminalIsNotAPath(t *testing.T) {
	c := newContainer(t, "")
	l := []string{"CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"}
	c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: l, Effective: l, Permitted: l}
	p := background(t, c)
	proc := *c.Spec.Process
	proc.Args = []string{"sh", "-c", "umount /dev/pts && mknod /dev/pts/ptmx c 1 5"}
	if out, code, err := execIn(t, c, p, &proc); err != nil || code != 0 {
		t.Fatalf("%s %d %v", out, code, err)
	}
	proc.Args = []string{"tty"}
	proc.Terminal = true
	if _, _, err := execIn(t, c, p, &proc); err == nil {
		t.Error("/dev/zero became a terminal")
	}
}

// TestExecIsNeverPrivilegedInside: what enters the pid namespace of a container
// has no privilege its processes could take over by tracing it (CVE-2016-9962),
// with a seccomp filter, as every container has one by default, and without.
func TestExecIsNeverPrivilegedInside(t *testing.T) {
	forbid := func(names ...string) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActErrno}}}
	}
	for _, test := range []struct {
		name    string
		filter  *specs.LinuxSeccomp
		noNew   bool
		visible string // the step it has to come after
	}{
		{"without a filter", nil, false, "become user 0"},
		{"with a filter", forbid("mount"), false, "become user 0"},
		{"with a filter and no new privileges", forbid("mount"), true, "become user 0"},
		{"with a filter that forbids to fork", forbid("clone", "clone3"), false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newContainer(t, "")
			p := background(t, c)
			c.Spec.Linux.Seccomp = test.filter
			proc := *c.Spec.Process
			proc.Args, proc.NoNewPrivileges = []string{"true"}, test.noNew
			list := stepsOfExec(t, c, p, &proc)
			drop, after, enter := strings.Index(list, "drop capabilities"), strings.Index(list, test.visible), strings.Index(list, "enter the container's pid namespace")
			if drop < 0 || enter < after || enter < 0 || test.visible != "" && after < drop {
				t.Errorf("the steps are: %s", list)
			}
			if out, code, err := execIn(t, c, p, &proc); err != nil || code != 0 {
				t.Errorf("%s %d %v", out, code, err)
			}
		})
	}
}

func stepsOfExec(t *testing.T, c *Container, p *Process, proc *specs.Process) string {
	t.Helper()
	b := newBuilder(&spawn.Program{}, c.Spec, proc, nil)
	defer b.close()
	target, err := (&Exec{Pid: p.Pid}).target()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := b.compileExec(&Exec{Pid: p.Pid, Spec: c.Spec, Process: proc}, target); err != nil {
		t.Fatal(err)
	}
	var order []string
	b.Steps(func(doing string) {
		if len(order) == 0 || order[len(order)-1] != doing {
			order = append(order, doing)
		}
	})
	return strings.Join(order, "; ")
}

// TestPasswdThatIsADevice: what a container puts in the place of a file that is
// read from outside must not be opened there, where no device is out of reach.
func TestPasswdThatIsADevice(t *testing.T) {
	root := newRoot(t)
	passwd := filepath.Join(root, "etc/passwd")
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(passwd, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, passwd, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if home := homeOf(dir, &specs.Process{}); home != "/" {
		t.Errorf("home is %q", home)
	}
	var event [4096]byte
	if n, err := unix.Read(watch, event[:]); err != unix.EAGAIN {
		t.Errorf("the device was opened (%d, %v)", n, err)
	}
}
