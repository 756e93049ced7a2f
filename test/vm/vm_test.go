package vm_test

import (
	"os"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/test/vm"
)

// The cgroup tests on kernels the host is not: one with nothing but v2, device
// programs included, and one with nothing but v1 and co-mounted controllers.
func TestCgroup(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines: left out of short runs")
	}
	tests := vm.AMD64.BuildTest(t, "github.com/gantry-containers/gantry/internal/ocirt/cgroup")
	for name, v1 := range map[string]bool{"v2": false, "v1": true} {
		t.Run(name, func(t *testing.T) {
			r := vm.Run(t, vm.Config{
				Binaries: map[string]string{"/cgroup.test": tests},
				Args:     []string{"/cgroup.test", "-test.v", "-test.timeout=150s"},
				CgroupV1: v1,
			})
			t.Log(summary(r.Output))
			if r.ExitCode != 0 {
				t.Errorf("the tests failed in the machine:\n%s", r.Output)
			}
		})
	}
}

// The OCI runtime with all of ocirt on cgroup v2, where containers are born into
// their cgroup and devices are a BPF program.
func TestOCIRuntime(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a virtual machine: left out of short runs")
	}
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("busybox-static is not installed")
	}
	binaries := map[string]string{
		"/oci.test": vm.AMD64.BuildTest(t, "github.com/gantry-containers/gantry/internal/ociruntime"),
	}
	for _, name := range []string{"busybox", "sh", "false", "ps"} {
		binaries["/bin/"+name] = busybox
	}
	r := vm.Run(t, vm.Config{
		Binaries: binaries,
		Args:     []string{"/oci.test", "-test.v", "-test.timeout=150s"},
		MemoryMB: 1024,
	})
	t.Log(summary(r.Output))
	if r.ExitCode != 0 {
		t.Errorf("the tests failed in the machine:\n%s", r.Output)
	}
}

// summary keeps the outcome of each test and the reason of each skip.
func summary(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "--- ") || strings.Contains(line, "_test.go:") {
			b.WriteString(line)
		}
	}
	return b.String()
}
