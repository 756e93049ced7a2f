package story

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func itoa(i int) string { return strconv.Itoa(i) }

func inspectPid(t *testing.T, id string) string {
	t.Helper()
	return itoa(inspect[int](t, id, ".State.Pid"))
}

func TestLimits(t *testing.T) {
	id := background(t, "-m", "64m", "--memory-reservation", "32m", "--memory-swap", "96m", "--cpus", "0.5",
		"--cpu-shares", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "50")
	dir := cgroupOf(t, id)
	want(t, dir, map[string]string{
		"memory.max": "67108864", "memory.low": "33554432", "memory.swap.max": "33554432",
		"cpu.max": "50000 100000", "cpuset.cpus": "0", "cpuset.cpus.effective": "0", "cpuset.mems": "0", "pids.max": "50",
	})
	if w := read(t, dir, "cpu.weight"); w == "100" {
		t.Errorf("cpu.weight is the default in spite of --cpu-shares 512")
	}
	if got := gantry(t, "exec", id, "cat", "/sys/fs/cgroup/memory.max"); got != "67108864" {
		t.Errorf("the container sees the memory limit %s", got)
	}
	// No limit asked, none set.
	id = background(t)
	want(t, cgroupOf(t, id), map[string]string{"memory.max": "max", "memory.swap.max": "max", "cpu.max": "max 100000", "pids.max": "max", "cpu.weight": "100"})
}

func TestUpdate(t *testing.T) {
	id := background(t, "-m", "64m")
	dir := cgroupOf(t, id)
	want(t, dir, map[string]string{"memory.max": "67108864", "memory.swap.max": "67108864"})
	gantry(t, "update", "-m", "128m", "--memory-swap", "256m", "--cpus", "0.25", "--pids-limit", "20", "--cpuset-cpus", "0", id)
	want(t, dir, map[string]string{
		"memory.max": "134217728", "memory.swap.max": "134217728", "cpu.max": "25000 100000", "pids.max": "20", "cpuset.cpus": "0",
	})
	gantry(t, "update", "--memory-swap", "-1", "--pids-limit", "-1", id)
	want(t, dir, map[string]string{"memory.max": "134217728", "memory.swap.max": "max", "pids.max": "max", "cpu.max": "25000 100000"})
	// What was set while it ran holds after a restart.
	gantry(t, "restart", "-t", "0", id)
	want(t, cgroupOf(t, id), map[string]string{"memory.max": "134217728", "cpu.max": "25000 100000", "pids.max": "max"})
}

func TestOOM(t *testing.T) {
	o := try(t, "run", "--name", "oom", "-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero")
	t.Cleanup(func() { try(t, "rm", "-f", "oom") })
	if o.code != 137 {
		t.Errorf("exit code %d, want 137: %s%s", o.code, o.stdout, o.stderr)
	}
	if !inspect[bool](t, "oom", ".State.OOMKilled") {
		t.Error("OOMKilled is false")
	}
	eventually(t, "there is an oom event", func() bool { // --until has whole seconds
		return strings.Contains(gantry(t, "events", "--since", "1h", "--until", "0s", "--filter", "container=oom", "--filter", "event=oom"), " oom ")
	})
	// Who ends by itself was not killed for memory.
	gantry(t, "run", "--name", "fine", "-m", "16m", "busybox", "true")
	t.Cleanup(func() { try(t, "rm", "-f", "fine") })
	if inspect[bool](t, "fine", ".State.OOMKilled") {
		t.Error("OOMKilled is true of a container that ended by itself")
	}
}

func TestPidsLimit(t *testing.T) {
	o := try(t, "run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 2 & done; wait")
	if !strings.Contains(o.stderr, "can't fork") {
		t.Errorf("nothing stopped the forks: %d %s%s", o.code, o.stdout, o.stderr)
	}
}

// Device rules are a BPF program on cgroup v2.
func TestDevices(t *testing.T) {
	sh := func(flags []string, script string) outcome {
		args := append([]string{"run", "--rm"}, flags...)
		return try(t, append(args, "busybox", "sh", "-c", script)...)
	}
	for _, c := range []struct {
		name   string
		flags  []string
		script string
		fails  string
	}{
		{"default devices", nil, "echo x > /dev/null && head -c 8 /dev/urandom > /dev/null && head -c 1 /dev/zero && : < /dev/full", ""},
		{"a terminal", []string{"-t"}, ": < /dev/tty && : < /dev/ptmx", ""},
		{"a node may be made", nil, "mknod /tmp/d c 10 237", ""},
		{"but not opened", nil, "mknod /tmp/d c 10 237 && : < /tmp/d", "Operation not permitted"},
		{"nor a disk", nil, "mknod /tmp/d b 7 0 && : < /tmp/d", "Operation not permitted"},
		{"a device given", []string{"--device", "/dev/loop-control"}, ": < /dev/loop-control && : >> /dev/loop-control", ""},
		{"read only: reads", []string{"--device", "/dev/loop-control:/dev/given:r"}, ": < /dev/given", ""},
		{"read only: does not write", []string{"--device", "/dev/loop-control:/dev/given:r"}, ": >> /dev/given", "Operation not permitted"},
		{"a rule", []string{"--device-cgroup-rule", "c 10:237 rmw"}, "mknod /tmp/d c 10 237 && : < /tmp/d && : >> /tmp/d", ""},
		{"a rule for reading", []string{"--device-cgroup-rule", "c 10:237 rm"}, "mknod /tmp/d c 10 237 && : < /tmp/d && : >> /tmp/d", "Operation not permitted"},
		{"a rule for all of a major", []string{"--device-cgroup-rule", "c 10:* rm"}, "mknod /tmp/d c 10 237 && : < /tmp/d", ""},
		{"a rule for another", []string{"--device-cgroup-rule", "c 10:236 rmw"}, "mknod /tmp/d c 10 237 && : < /tmp/d", "Operation not permitted"},
		{"a rule for disks", []string{"--device-cgroup-rule", "b 10:237 rmw"}, "mknod /tmp/d c 10 237 && : < /tmp/d", "Operation not permitted"},
		{"privileged", []string{"--privileged"}, "mknod /tmp/d c 10 237 && : < /tmp/d", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := sh(c.flags, c.script)
			if c.fails == "" && o.code != 0 || c.fails != "" && (o.code == 0 || !strings.Contains(o.stderr, c.fails)) {
				t.Errorf("exit code %d, want failure with %q: %s%s", o.code, c.fails, o.stdout, o.stderr)
			}
		})
	}
	// The program stays when limits change.
	id := background(t)
	gantry(t, "update", "-m", "64m", "--memory-swap", "64m", id)
	for _, flags := range [][]string{nil, {"--privileged"}} {
		args := append(append([]string{"exec"}, flags...), id, "sh", "-c", "rm -f /tmp/d; mknod /tmp/d c 10 237 && : < /tmp/d")
		if o := try(t, args...); o.code == 0 || !strings.Contains(o.stderr, "Operation not permitted") {
			t.Errorf("after an update %v opens a device that was not given: %d %s", args, o.code, o.stderr)
		}
	}
}

func TestStats(t *testing.T) {
	id := start(t, []string{"-m", "64m"}, "busybox", "sh", "-c", "while :; do :; done")
	var row struct{ CPUPerc, MemPerc, MemUsage, PIDs string }
	eventually(t, "the container has used a processor", func() bool {
		if err := json.Unmarshal([]byte(gantry(t, "stats", "--no-stream", "--format", "json", id)), &row); err != nil {
			t.Fatal(err)
		}
		return row.CPUPerc != "0.00%"
	})
	if row.PIDs != "1" || strings.HasPrefix(row.MemUsage, "0B") || !strings.HasSuffix(row.MemUsage, "/ 64MiB") || row.MemPerc == "0.00%" {
		t.Errorf("stats: %+v", row)
	}
}

// What a machine without CAP_SYS_RESOURCE refuses.
func TestRaise(t *testing.T) {
	if got := gantry(t, "run", "--rm", "--ulimit", "nofile=20000:30000", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"); got != "20000\n30000" {
		t.Errorf("the limits are %q", got)
	}
	if got := gantry(t, "run", "--rm", "--oom-score-adj", "-500", "busybox", "cat", "/proc/self/oom_score_adj"); got != "-500" {
		t.Errorf("the score adjustment is %q", got)
	}
	if got := gantry(t, "run", "--rm", "--ulimit", "core=-1", "--sysctl", "net.ipv4.ip_unprivileged_port_start=80", "busybox", "sh", "-c", "ulimit -Hc; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"); got != "unlimited\n80" {
		t.Errorf("printed %q", got)
	}
}

// Docker warns of what cgroup v2 no longer has, and goes on.
func TestGone(t *testing.T) {
	for _, flags := range [][]string{{"-m", "32m", "--memory-swappiness", "10"}, {"-m", "32m", "--oom-kill-disable"}} {
		o := try(t, append(append([]string{"run", "--rm"}, flags...), "busybox", "true")...)
		if o.code != 0 || !strings.Contains(o.stderr, "WARNING") {
			t.Errorf("%v: %d %s", flags, o.code, o.stderr)
		}
	}
}

func TestBlockIO(t *testing.T) {
	if err := os.WriteFile("/run/disk", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate("/run/disk", 8<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("busybox", "losetup", "/dev/loop0", "/run/disk").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("busybox", "losetup", "-d", "/dev/loop0").Run() })
	id := background(t, "--device-read-bps", "/dev/loop0:1mb", "--device-write-iops", "/dev/loop0:100", "--blkio-weight", "300")
	dir := cgroupOf(t, id)
	want(t, dir, map[string]string{"io.max": "7:0 rbps=1048576 wbps=max riops=max wiops=100"})
	if w := read(t, dir, "io.weight"); w == "default 100" {
		t.Errorf("io.weight is the default in spite of --blkio-weight 300")
	}
	// A given device can be read through its own limit.
	o := try(t, "run", "--rm", "--device", "/dev/loop0:/dev/disk:r", "busybox", "sh", "-c", "dd if=/dev/disk of=/dev/null bs=4k count=4 && ! ( : >> /dev/disk )")
	if o.code != 0 {
		t.Errorf("the disk: %d %s", o.code, o.stderr)
	}
}

// A container may divide its own cgroup where it is writable, and execs and
// updates go on.
func TestDelegation(t *testing.T) {
	id := start(t, []string{"--privileged", "-m", "64m"}, "busybox", "sh", "-ec", `
mkdir /sys/fs/cgroup/leaf
for p in $(cat /sys/fs/cgroup/cgroup.procs); do echo $p > /sys/fs/cgroup/leaf/cgroup.procs 2>/dev/null || true; done
echo "+memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
echo 20 > /sys/fs/cgroup/leaf/pids.max
echo divided; sleep 1000`)
	eventually(t, "the cgroup is divided", func() bool { return try(t, "logs", id).stdout == "divided\n" })
	gantry(t, "exec", id, "true")
	gantry(t, "update", "-m", "96m", "--memory-swap", "96m", id)
	if got := gantry(t, "exec", id, "cat", "/sys/fs/cgroup/memory.max"); got != "100663296" {
		t.Errorf("memory.max is %s", got)
	}
	gantry(t, "pause", id)
	gantry(t, "unpause", id)
	gantry(t, "rm", "-f", id)
}
