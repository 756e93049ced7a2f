package story

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestInfo(t *testing.T) {
	if got := gantry(t, "info", "-f", "{{.CgroupVersion}} {{.CgroupDriver}} {{.Driver}} {{json .Warnings}}"); got != "2 cgroupfs overlay2 []" && got != "2 cgroupfs overlay2 null" && got != "2 cgroupfs overlayfs null" {
		t.Errorf("info says %s", got)
	}
	options := gantry(t, "info", "-f", "{{.SecurityOptions}}")
	for _, option := range []string{"name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"} {
		if !strings.Contains(options, option) {
			t.Errorf("the security options %s lack %s", options, option)
		}
	}
	if out := try(t, "info"); strings.Contains(out.stdout+out.stderr, "WARNING") {
		t.Errorf("info warns on a machine that lacks nothing:\n%s%s", out.stdout, out.stderr)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"success", []string{"busybox", "true"}, 0},
		{"failure", []string{"busybox", "sh", "-c", "exit 3"}, 3},
		{"signal", []string{"--init", "busybox", "sh", "-c", "kill -9 $$"}, 137},
		{"not found", []string{"busybox", "no-such-program"}, 127},
		{"not executable", []string{"busybox", "/etc/passwd"}, 126},
		{"no image", []string{"--pull", "never", "no-such-image"}, 125},
	} {
		t.Run(c.name, func(t *testing.T) {
			if o := try(t, append([]string{"run", "--rm"}, c.args...)...); o.code != c.code {
				t.Errorf("exit code %d, want %d: %s%s", o.code, c.code, o.stdout, o.stderr)
			}
		})
	}
}

func TestLifecycle(t *testing.T) {
	id := gantry(t, "run", "-d", "--name", "life", "busybox", "sh", "-c", `trap "echo bye; exit 7" TERM; echo hello; while :; do sleep 0.1; done`)
	t.Cleanup(func() { try(t, "rm", "-f", id) })
	eventually(t, "the first line is in the log", func() bool { return try(t, "logs", id).stdout == "hello\n" })
	if got := gantry(t, "exec", "life", "sh", "-c", "hostname; cat /proc/1/comm"); got != id[:12]+"\nsh" {
		t.Errorf("exec printed %q", got)
	}
	if o := try(t, "exec", "life", "sh", "-c", "exit 5"); o.code != 5 {
		t.Errorf("exec ended with %d, want 5: %s", o.code, o.stderr)
	}
	dir := cgroupOf(t, id)
	gantry(t, "stop", "life")
	if got := inspect[int](t, id, ".State.ExitCode"); got != 7 {
		t.Errorf("exit code %d, want 7", got)
	}
	if got := gantry(t, "logs", id); got != "hello\nbye" {
		t.Errorf("the log is %q", got)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the cgroup is still there: %v", err)
	}
	gantry(t, "start", "life")
	gantry(t, "rm", "-f", "life")
	if o := try(t, "inspect", id); o.code != 1 {
		t.Errorf("the container is still there: %s", o.stdout)
	}
}

// The container is born in its cgroup and sees it as the root.
func TestCgroupNamespace(t *testing.T) {
	if got := gantry(t, "run", "--rm", "busybox", "cat", "/proc/self/cgroup"); got != "0::/" {
		t.Errorf("the container is in %q", got)
	}
	if got := gantry(t, "run", "--rm", "busybox", "sh", "-c", "grep ' /sys/fs/cgroup ' /proc/mounts | cut -d' ' -f3,4 | cut -d, -f1; cat /sys/fs/cgroup/cgroup.procs"); got != "cgroup2 ro\n1" {
		t.Errorf("/sys/fs/cgroup in the container: %q", got)
	}
	id := background(t, "--cgroupns", "host")
	if got, dir := gantry(t, "exec", id, "cat", "/proc/1/cgroup"), cgroupOf(t, id); "/sys/fs/cgroup"+strings.TrimPrefix(got, "0::") != dir {
		t.Errorf("with the host's namespace the container is in %q, want %s", got, dir)
	}
	id = background(t)
	if dir := cgroupOf(t, id); filepath.Base(dir) != id {
		t.Errorf("the container is in %s", dir)
	}
	// A process that joins is in the container's cgroup too.
	if got := gantry(t, "exec", id, "cat", "/proc/self/cgroup"); got != "0::/" {
		t.Errorf("exec is in %q", got)
	}
	id = background(t, "--cgroup-parent", "/elsewhere")
	if dir := cgroupOf(t, id); filepath.Dir(dir) != "/sys/fs/cgroup/elsewhere" {
		t.Errorf("with a parent of its own the container is in %s", dir)
	}
}

func TestPause(t *testing.T) {
	id := background(t)
	dir := cgroupOf(t, id)
	gantry(t, "pause", id)
	want(t, dir, map[string]string{"cgroup.freeze": "1"})
	if got := inspect[string](t, id, ".State.Status"); got != "paused" {
		t.Errorf("the status is %s", got)
	}
	if o := try(t, "exec", id, "true"); o.code != 1 || !strings.Contains(o.stderr, "paused") {
		t.Errorf("exec into a paused container: %d %s", o.code, o.stderr)
	}
	gantry(t, "unpause", id)
	want(t, dir, map[string]string{"cgroup.freeze": "0"})
	gantry(t, "exec", id, "true")
	// What is paused can be killed.
	gantry(t, "pause", id)
	gantry(t, "rm", "-f", id)
}

func TestInit(t *testing.T) {
	got := gantry(t, "run", "--rm", "--init", "busybox", "cat", "/proc/1/cmdline")
	if !strings.Contains(got, "init") {
		t.Errorf("the first process is %q", got)
	}
}

func TestPrivileged(t *testing.T) {
	got := gantry(t, "run", "--rm", "--privileged", "busybox", "sh", "-ec", `
grep CapEff /proc/self/status
grep Seccomp: /proc/self/status
mkdir /sys/fs/cgroup/child
echo $$ > /sys/fs/cgroup/child/cgroup.procs
cat /proc/self/cgroup
mount -t tmpfs none /mnt 2>/dev/null || { mkdir -p /mnt && mount -t tmpfs none /mnt; }
test -c /dev/kmsg
dd if=/dev/kmsg of=/dev/null bs=8192 count=1 2>/dev/null
echo done`)
	for _, line := range []string{"CapEff:\t000001ffffffffff", "Seccomp:\t0", "0::/child", "done"} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
}

// The daemon dies; containers run on, and their ends are known afterwards.
func TestDaemonDies(t *testing.T) {
	lasting := start(t, []string{"-m", "64m"}, "busybox", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
	ending := start(t, nil, "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exit 42")
	pid := inspect[int](t, lasting, ".State.Pid")
	flag := filepath.Join("/proc", inspectPid(t, ending), "root/go")
	if err := engine.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container has ended", func() bool { _, err := os.Stat(filepath.Dir(flag)); return err != nil })
	if err := engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := inspect[int](t, lasting, ".State.Pid"); got != pid {
		t.Errorf("the container had the process %d, now %d", pid, got)
	}
	eventually(t, "the exit is known", func() bool { return inspect[string](t, ending, ".State.Status") == "exited" })
	if got := inspect[int](t, ending, ".State.ExitCode"); got != 42 {
		t.Errorf("exit code %d, want 42", got)
	}
	gantry(t, "exec", lasting, "true")
	gantry(t, "update", "-m", "96m", "--memory-swap", "96m", lasting)
	want(t, cgroupOf(t, lasting), map[string]string{"memory.max": "100663296"})
	gantry(t, "stop", "-t", "0", lasting)
	for i, line := range strings.Split(gantry(t, "logs", lasting), "\n") {
		if line != itoa(i+1) {
			t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
}
