package security

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A container that may trace processes (--cap-add SYS_PTRACE, for debuggers)
// must not meet one that has more privileges than itself: what exec is about to
// become would be the host's root (CVE-2016-9962).
func TestExecIsNeverMorePrivileged(t *testing.T) {
	id := attacker(t, "watch", "--cap-add", "SYS_PTRACE")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		gantry(t, "exec", id, "true")
	}
	if out := gantry(t, "logs", id); strings.Contains(out, "got:") {
		t.Error(out)
	}
}

// An exec has three descriptors and the container's confinement.
func TestExecIsConfined(t *testing.T) {
	id := container(t)
	const look = "ls /proc/self/fd | tr '\\n' ' '; grep -E 'CapEff|CapInh|CapAmb|Seccomp:' /proc/self/status | tr -s '\\t\\n' '  '"
	first := gantry(t, "run", "--rm", "busybox", "sh", "-c", look)
	if out := gantry(t, "exec", id, "sh", "-c", look); out != first || !strings.Contains(out, "CapEff: 00000000a80425fb") ||
		!strings.Contains(out, "Seccomp: 2") || !strings.HasPrefix(out, "0 1 2 3 CapInh: 0000000000000000") {
		t.Errorf("an exec has:      %s\na container has: %s", out, first)
	}
}

// A device in the place of /etc/passwd is not opened by the engine, which
// would be the only one that can: it is not in the container's device cgroup.
func TestExecWithADeviceForPasswd(t *testing.T) {
	id := container(t)
	gantry(t, "exec", id, "sh", "-c", "rm /etc/passwd /etc/group; mknod /etc/passwd c 1 3; mknod /etc/group c 1 3")
	if out := gantry(t, "exec", id, "id", "-u"); out != "0" {
		t.Error(out)
	}
	if _, err := engine.Run("exec", "-u", "web", id, "id"); err == nil || !strings.Contains(err.Error(), "web") {
		t.Error(err)
	}
}

// A container that shares the pid namespace of one that may trace processes is
// not met there with more privileges than it has.
func TestSharerOfPidsIsNeverMorePrivileged(t *testing.T) {
	id := attacker(t, "watch", "--cap-add", "SYS_PTRACE")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if out := gantry(t, "run", "--rm", "--pid", "container:"+id, "--network", "none", "busybox",
			"sh", "-c", "cat /proc/1/comm; grep -c ' /proc proc rw,nosuid,nodev,noexec' /proc/mounts; grep -c ' /proc/sys proc ro' /proc/mounts"); out != "attack\n1\n1" {
			t.Fatalf("the other container's processes, its own procfs and its masks: %s", out)
		}
	}
	if out := gantry(t, "logs", id); strings.Contains(out, "got:") {
		t.Error(out)
	}
}

// What one container was given is not in reach of another one that may trace
// processes, by way of those that are about to join it.
func TestMemoryOfTheJoining(t *testing.T) {
	const backwards = "3r0fth61e-s3man-4-ton-terces"
	secret := []byte(backwards)
	slices.Reverse(secret)
	container(t, "-e", "TOKEN="+string(secret))
	id := attacker(t, "read", "--cap-add", "SYS_PTRACE", "-e", "SECRET="+backwards)
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		gantry(t, "run", "--rm", "-e", "TOKEN="+string(secret), "--network", "none", "busybox", "true")
		gantry(t, "exec", id, "true")
		gantry(t, "run", "--rm", "--pid", "container:"+id, "--network", "none", "busybox", "true")
	}
	out := gantry(t, "logs", id)
	if strings.Contains(out, "got:") {
		t.Error(out)
	}
	t.Logf("the attacker got to read: %t", strings.Contains(out, "read "))
}
