package story

import (
	"os"
	"strings"
	"testing"
)

// runc is where a machine has the external runtime of that name.
const runc = "/sbin/runc"

func needRunc(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(runc); err != nil {
		t.Skip("the package runc or its libraries could not be had")
	}
}

// Containers of an external runtime are held as our own are: with nothing but
// cgroup v2 it is told where the cgroup is and makes it itself.
func TestRuncLifecycle(t *testing.T) {
	needRunc(t)
	id := start(t, []string{"--runtime", "runc", "-m", "64m", "--pids-limit", "50", "-v", "/data"}, "busybox",
		"sh", "-c", `trap "echo bye; exit 7" TERM; echo hello > /data/f; cat /data/f; while :; do sleep 0.1; done`)
	if got := inspect[string](t, id, ".HostConfig.Runtime"); got != "runc" {
		t.Errorf("inspect says the runtime is %q", got)
	}
	eventually(t, "the first line is in the log", func() bool { return try(t, "logs", id).stdout == "hello\n" })
	dir := cgroupOf(t, id)
	if !strings.HasSuffix(dir, "/"+id) {
		t.Errorf("the container is in %s", dir)
	}
	want(t, dir, map[string]string{"memory.max": "67108864", "pids.max": "50"})
	if got := gantry(t, "exec", id, "sh", "-c", "cat /proc/self/cgroup; hostname; cat /data/f"); got != "0::/\n"+id[:12]+"\nhello" {
		t.Errorf("exec printed %q", got)
	}
	if o := try(t, "exec", id, "sh", "-c", "exit 5"); o.code != 5 {
		t.Errorf("exec ended with %d, want 5: %s", o.code, o.stderr)
	}
	gantry(t, "pause", id)
	want(t, dir, map[string]string{"cgroup.freeze": "1"})
	gantry(t, "unpause", id)
	want(t, dir, map[string]string{"cgroup.freeze": "0"})
	gantry(t, "update", "-m", "96m", "--memory-swap", "96m", id)
	want(t, dir, map[string]string{"memory.max": "100663296"})
	gantry(t, "stop", id)
	if got := inspect[int](t, id, ".State.ExitCode"); got != 7 {
		t.Errorf("exit code %d, want 7", got)
	}
	if got := gantry(t, "logs", id); got != "hello\nbye" {
		t.Errorf("the log is %q", got)
	}
	// The runtime is told to delete it once the end has been made known.
	eventually(t, "the cgroup is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	gantry(t, "start", id)
	gantry(t, "rm", "-f", id)
}

func TestRuncRun(t *testing.T) {
	needRunc(t)
	run := func(args ...string) outcome {
		return try(t, append([]string{"run", "--rm", "--runtime", "runc"}, args...)...)
	}
	if o := run("busybox", "sh", "-c", "exit 3"); o.code != 3 {
		t.Errorf("exit code %d, want 3: %s", o.code, o.stderr)
	}
	if o := run("busybox", "no-such-program"); o.code != 127 {
		t.Errorf("a program that is not there: exit code %d, want 127: %s", o.code, o.stderr)
	}
	// Devices are a program of BPF that runc makes of the engine's rules.
	if o := run("busybox", "sh", "-c", "mknod /tmp/d c 10 237 && : < /tmp/d"); o.code == 0 || !strings.Contains(o.stderr, "Operation not permitted") {
		t.Errorf("a device that was not given: %d %s", o.code, o.stderr)
	}
	if o := run("--device", "/dev/loop-control", "busybox", "sh", "-c", ": < /dev/loop-control"); o.code != 0 {
		t.Errorf("a device that was given: %d %s", o.code, o.stderr)
	}
}

// What the kernel says of a container that runc has made is in its statistics
// and its state.
func TestRuncOOM(t *testing.T) {
	needRunc(t)
	id := start(t, []string{"--runtime", "runc", "-m", "32m", "--memory-swap", "32m"}, "busybox", "tail", "/dev/zero")
	if got := gantry(t, "wait", id); got != "137" {
		t.Errorf("wait printed %q", got)
	}
	if !inspect[bool](t, id, ".State.OOMKilled") {
		t.Error("inspect does not say that the memory ran out")
	}
}
