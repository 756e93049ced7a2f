// Package vmengine runs the whole engine in a machine of its own: a Debian kernel
// with nothing but cgroup v2, AppArmor, every capability, and modules that load
// when they are asked for. It is what a user's machine is and a build machine
// often is not.
//
// The tests themselves are package story, which runs inside; this package boots
// the machine and reports each of them as a test of the host.
package vmengine

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
	"github.com/gantry-containers/gantry/test/vm"
)

// modules are what the engine has the kernel load.
var modules = []string{
	"overlay", "bridge", "veth", "loop", "nf_tables", "nf_conntrack", "nf_nat", "nft_chain_nat", "nft_ct",
	"nft_nat", "nft_masq", "nft_fib", "nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6", "nft_reject", "nft_reject_inet",
	"nft_redir", "nft_limit", "nft_numgen", "nft_hash", "nft_objref", "nft_quota",
}

func TestEngine(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a virtual machine: left out of short runs")
	}
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("busybox-static is not installed")
	}
	programs, err := enginetest.Programs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	binaries := files(t, vm.AMD64, programs, busybox)
	addDynamic(t, binaries, "apparmor", "sbin/apparmor_parser")
	addDynamic(t, binaries, "runc", "sbin/runc")
	// GANTRY_STORY chooses tests, as the flag -run does.
	tell(t, vm.AMD64, binaries, os.Getenv("GANTRY_STORY"))
}

// The way of a container through all the programs on the other processor; what
// does not depend on it, the test above has looked at.
func TestEngineARM64(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a virtual machine: left out of short runs")
	}
	tree, err := vm.ARM64.Package("busybox-static")
	if err != nil {
		t.Skipf("no busybox for the test machine: %v", err)
	}
	programs := vm.ARM64.BuildAll(t, "github.com/gantry-containers/gantry/cmd/...")
	binaries := files(t, vm.ARM64, programs, filepath.Join(tree, "bin/busybox"))
	tell(t, vm.ARM64, binaries, "^(TestExitCodes|TestLifecycle|TestPublish|TestPause|TestOCI)$")
}

// files are the programs of the machine, but those of a distribution.
func files(t *testing.T, arch vm.Arch, programs, busybox string) map[string]string {
	t.Helper()
	binaries := map[string]string{
		"/story.test":    arch.BuildTest(t, "github.com/gantry-containers/gantry/test/vmengine/story"),
		"/sbin/modprobe": busybox,
	}
	for _, name := range []string{"gantry", "gantryd", "gantry-shim", "gantry-oci", "gantry-init"} {
		binaries["/bin/"+name] = filepath.Join(programs, name)
	}
	for _, name := range []string{"busybox", "sh", "cat"} {
		binaries["/bin/"+name] = busybox
	}
	return binaries
}

// tell boots the machine and reports the tests in it.
func tell(t *testing.T, arch vm.Arch, binaries map[string]string, run string) {
	t.Helper()
	r := vm.Run(t, vm.Config{
		Arch:     arch,
		Binaries: binaries,
		Args:     []string{"/story.test", "-test.v=test2json", "-test.timeout=280s", "-test.run=" + run},
		Env:      []string{"GANTRY_TEST_MACHINE=1", "GANTRY_BIN=/bin"},
		Autoload: modules,
		MemoryMB: 1536,
		Timeout:  6 * time.Minute,
	})
	for line := range strings.Lines(r.Output) {
		if strings.HasPrefix(line, "story: ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	tests := parse(t, r.Output)
	if len(tests) == 0 {
		t.Fatalf("the machine ran no test (exit code %d):\n%s", r.ExitCode, r.Output)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.report(t) })
	}
	if r.ExitCode != 0 && !t.Failed() {
		t.Errorf("the tests ended with exit code %d:\n%s", r.ExitCode, r.Output)
	}
}

// addDynamic gives the machine a program of a Debian package with its libraries,
// which are the host's; without them the tests that need it skip.
func addDynamic(t *testing.T, binaries map[string]string, pkg, path string) {
	t.Helper()
	const loader = "/lib64/ld-linux-x86-64.so.2"
	tree, err := vm.AMD64.Package(pkg)
	if err != nil {
		t.Logf("no %s in the machine: %v", pkg, err)
		return
	}
	program := filepath.Join(tree, path)
	if _, err := os.Stat(program); err != nil { // merged /usr
		program = filepath.Join(tree, "usr", path)
	}
	libs, err := exec.Command(loader, "--list", program).Output()
	if err != nil {
		t.Logf("no %s in the machine: its libraries are not here: %v", pkg, err)
		return
	}
	binaries["/"+path], binaries[loader] = program, loader
	for line := range strings.Lines(string(libs)) {
		if name, file, ok := strings.Cut(strings.TrimSpace(line), " => "); ok {
			file, _, _ = strings.Cut(file, " ")
			binaries["/lib/x86_64-linux-gnu/"+name] = file
		}
	}
}

// result is how one test in the machine ended.
type result struct {
	name   string
	action string
	output string
	subs   []*result
}

func (r *result) report(t *testing.T) {
	for _, sub := range r.subs {
		t.Run(sub.name, func(t *testing.T) { sub.report(t) })
	}
	switch r.action {
	case "pass":
	case "skip":
		t.Skip(r.output)
	default:
		t.Errorf("%s in the machine:\n%s", r.action, r.output)
	}
}

// parse reads what the tests wrote to the console.
func parse(t *testing.T, console string) []*result {
	t.Helper()
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin = strings.NewReader(console)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot read the output of the tests: %v", err)
	}
	var top []*result
	all := map[string]*result{}
	dec := json.NewDecoder(bytes.NewReader(out))
	for dec.More() {
		var event struct{ Action, Test, Output string }
		if err := dec.Decode(&event); err != nil {
			t.Fatalf("cannot read the output of the tests: %v", err)
		}
		if event.Test == "" {
			continue
		}
		r := all[event.Test]
		if r == nil {
			r = &result{name: event.Test, action: "no end"}
			all[event.Test] = r
			if i := strings.LastIndex(event.Test, "/"); i > 0 && all[event.Test[:i]] != nil {
				parent := all[event.Test[:i]]
				r.name = event.Test[i+1:]
				parent.subs = append(parent.subs, r)
			} else {
				top = append(top, r)
			}
		}
		switch event.Action {
		case "output":
			r.output += event.Output
		case "pass", "fail", "skip":
			r.action = event.Action
		}
	}
	return top
}
