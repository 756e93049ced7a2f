package vm_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/test/vm"
)

// What is written for the processor: the fork of internal/spawn and the handler of
// internal/cli/catch in assembly, and the runtime with its table of system calls for
// seccomp.
func TestARM64(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a virtual machine: left out of short runs")
	}
	tree, err := vm.ARM64.Package("busybox-static")
	if err != nil {
		t.Skipf("no busybox for the test machine: %v", err)
	}
	busybox := filepath.Join(tree, "bin/busybox")
	binaries := map[string]string{"/usr/bin/busybox": busybox}
	for _, name := range []string{"busybox", "sh", "cat", "true", "false", "sleep"} {
		binaries["/bin/"+name] = busybox
	}
	var commands [][]string
	for _, p := range []struct{ name, tests string }{
		{"spawn", ""},
		{"cli/catch", ""},
		{"ocirt/seccomp", "Kernel.*|Permits|Table"},
		// The others are about the kernel, and expect a newer one than this or one
		// with cgroup v1; how a container comes to be is the same everywhere.
		{"ocirt", "BaseIsEmpty|Hooks|Seccomp|SeccompListener|JoinContainer|NetNS|StartFIFO|Terminal|Exec|Cancel|" +
			"ProgramOfTheShimIsOutOfReach|ExecIsNeverPrivilegedInside"},
	} {
		program := "/" + filepath.Base(p.name) + ".test"
		binaries[program] = vm.ARM64.BuildTest(t, "github.com/gantry-containers/gantry/internal/"+p.name)
		command := []string{program, "-test.v", "-test.timeout=170s"}
		if p.tests != "" {
			command = append(command, "-test.run=^Test("+p.tests+")$")
		}
		commands = append(commands, command)
	}
	r := vm.Run(t, vm.Config{
		Arch:     vm.ARM64,
		Binaries: binaries,
		Commands: commands,
		Files:    map[string][]byte{"/etc/passwd": []byte("root:x:0:0::/root:/bin/sh\n")},
		Modules:  []string{"overlay"},
		MemoryMB: 1024,
		Timeout:  5 * time.Minute,
	})
	t.Log(summary(r.Output))
	if r.ExitCode != 0 {
		t.Errorf("the tests failed in the machine:\n%s", r.Output)
	}
}
