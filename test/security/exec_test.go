package security

import (
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
