package story

import (
	"os"
	"strings"
	"testing"
)

func TestAppArmor(t *testing.T) {
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") {
		t.Skip("this kernel has no AppArmor")
	}
	if o := try(t, "run", "--rm", "--security-opt", "apparmor=unconfined", "busybox", "cat", "/proc/self/attr/apparmor/current"); o.code != 0 || !strings.HasPrefix(o.stdout, "unconfined") {
		t.Errorf("unconfined: %d %q %s", o.code, o.stdout, o.stderr)
	}
	o := try(t, "run", "--rm", "--security-opt", "apparmor=no-such-profile", "busybox", "true")
	if o.code != 125 && o.code != 126 && o.code != 127 || !strings.Contains(o.stderr, "no-such-profile") {
		t.Errorf("a profile that is not loaded: %d %s", o.code, o.stderr)
	}
}
