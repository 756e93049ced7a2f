package story

import (
	"os"
	"strings"
	"testing"
)

// current prints the profile a program in the container has.
var current = []string{"busybox", "cat", "/proc/self/attr/apparmor/current"}

func needAppArmor(t *testing.T) {
	t.Helper()
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") {
		t.Skip("this kernel has no AppArmor")
	}
	if _, err := os.Stat("/sbin/apparmor_parser"); err != nil {
		t.Skip("the package apparmor could not be had")
	}
}

func TestAppArmorProfile(t *testing.T) {
	needAppArmor(t)
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{nil, "docker-default (enforce)"},
		{[]string{"-u", "1000", "--security-opt", "no-new-privileges"}, "docker-default (enforce)"},
		{[]string{"--init"}, "docker-default (enforce)"},
		{[]string{"--security-opt", "apparmor=docker-default"}, "docker-default (enforce)"},
		{[]string{"--security-opt", "apparmor=unconfined"}, "unconfined"},
		{[]string{"--privileged"}, "unconfined"},
		{[]string{"--privileged", "--security-opt", "apparmor=docker-default"}, "docker-default (enforce)"},
	} {
		if got := gantry(t, append(append([]string{"run", "--rm"}, c.flags...), current...)...); got != c.want {
			t.Errorf("with %v the profile is %q, want %q", c.flags, got, c.want)
		}
	}
	o := try(t, "run", "--rm", "--security-opt", "apparmor=no-such-profile", "busybox", "true")
	if o.code == 0 || !strings.Contains(o.stderr, "no-such-profile") {
		t.Errorf("a profile that is not loaded: %d %s", o.code, o.stderr)
	}
}

// Confined containers are still stopped, traced and entered.
func TestAppArmorConfined(t *testing.T) {
	needAppArmor(t)
	id := start(t, []string{"--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"},
		"busybox", "sh", "-c", `trap "exit 3" TERM; while :; do sleep 0.1; done`)
	if got := inspect[string](t, id, ".AppArmorProfile"); got != "docker-default" {
		t.Errorf("inspect says %q", got)
	}
	if got := gantry(t, append([]string{"exec", id}, current[1:]...)...); got != "docker-default (enforce)" {
		t.Errorf("the profile of an exec is %q", got)
	}
	for _, c := range []struct {
		script string
		fails  bool
	}{
		{"mkdir -p /m; mount -t tmpfs none /m", true},
		{"echo h > /proc/sysrq-trigger", true},
		{"echo 1 > /proc/sys/vm/drop_caches", true},
		{"echo x > /proc/sys/kernel/core_pattern", true},
		{"head -c 1 /proc/kcore", true},
		{"ls /sys/firmware/acpi/tables", true},
		{"cat /proc/sys/kernel/shmmax > /tmp/max; cat /tmp/max > /proc/sys/kernel/shmmax", false},
		{"echo 7 > /proc/self/oom_score_adj; ls /proc/1/fd; ls -R /etc /dev > /dev/null", false},
		{"cat /proc/net/tcp /proc/meminfo /sys/fs/cgroup/memory.max > /dev/null", false},
		{"sleep 100 & kill $!", false},
		{"nc -l -p 99 & sleep 0.2; echo x | nc -w 1 127.0.0.1 99", false},
	} {
		if o := try(t, "exec", id, "sh", "-c", c.script); (o.code != 0) != c.fails {
			t.Errorf("%s: exit code %d %s%s", c.script, o.code, o.stdout, o.stderr)
		}
	}
	gantry(t, "stop", id)
	if got := inspect[int](t, id, ".State.ExitCode"); got != 3 {
		t.Errorf("exit code %d, want 3", got)
	}
}
