// Package vm boots a small virtual machine with a kernel of its own and runs
// test programs in it: for what the kernel of the host is not, such as one with
// cgroup v2.
//
// It owns the machine from the first instruction to power off. The kernel is
// Debian's cloud image, fetched by apt-get once and kept in the user's cache; the
// machine has no disk and no network, only an initial file system with the
// programs. Without hardware virtualization a boot takes some ten seconds.
//
// It must not know what the programs test.
package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/test/vm/job"
)

// Config is one machine.
type Config struct {
	// Arch is AMD64 when empty. The programs must be of the same.
	Arch Arch
	// Binaries are files of the host, by their absolute path in the machine. They
	// must be static.
	Binaries map[string]string
	// Commands run one after the other until one fails. Without any, Args is the
	// only one.
	Commands [][]string
	Args     []string
	Env      []string
	Files    map[string][]byte // by absolute path
	Modules  []string          // kernel modules to load, with what they depend on: "overlay"
	// Autoload are kernel modules the kernel is to load by itself when it needs
	// them, as on an installed system. Binaries must have a /sbin/modprobe.
	Autoload []string
	CgroupV1 bool // v1 hierarchies instead of v2
	MemoryMB int  // 512 when 0
	// CPUs is 1 when 0: emulated processors that wait for each other are slow, and
	// now and then hang where the host is busy.
	CPUs    int
	Timeout time.Duration // 3 minutes when 0
}

// Result is how a machine ended.
type Result struct {
	Output   string // the console, from the first process on
	ExitCode int    // of the first command that failed, else 0
}

// Run boots a machine and returns when it has powered off. It skips the test
// with a reason where no machine can be had, and fails it when the machine does
// not finish. The exit code is the caller's to judge.
func Run(t *testing.T, cfg Config) Result {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a virtual machine: left out of short runs")
	}
	machine, err := cfg.Arch.machine()
	if err != nil {
		t.Skip(err)
	}
	qemu, err := exec.LookPath(machine.qemu)
	if err != nil {
		t.Skipf("%s is not installed (apt-get install %s)", machine.qemu, machine.pkg)
	}
	kernel, err := cfg.Arch.findKernel(machine.kernel)
	if err != nil {
		t.Skipf("no kernel for the test machine: %v", err)
	}
	j := job.Job{Commands: cfg.Commands, Env: cfg.Env, CgroupV1: cfg.CgroupV1}
	if len(j.Commands) == 0 {
		j.Commands = [][]string{cfg.Args}
	}
	files := map[string]file{"/init": {path: cfg.Arch.Build(t, "github.com/gantry-containers/gantry/test/vm/init")}}
	for name, path := range cfg.Binaries {
		files[name] = file{path: path}
	}
	for name, data := range cfg.Files {
		files[name] = file{data: data}
	}
	mods, err := kernel.modules(cfg.Modules)
	if err != nil {
		t.Skipf("no kernel for the test machine: %v", err)
	}
	for _, m := range mods {
		name := "/modules/" + filepath.Base(m)
		files[name] = file{path: m}
		j.Modules = append(j.Modules, name)
	}
	auto, err := kernel.autoload(cfg.Autoload)
	if err != nil {
		t.Skipf("no kernel for the test machine: %v", err)
	}
	for name, path := range auto {
		files[name] = file{path: path}
	}
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	files[job.Path] = file{data: b}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := writeCPIO(initrd, files); err != nil {
		t.Fatal(err)
	}
	machine.qemu = qemu
	return machine.boot(t, cfg, kernel.image, initrd)
}

func (m machine) boot(t *testing.T, cfg Config, image, initrd string) Result {
	t.Helper()
	mb, timeout := cfg.MemoryMB, cfg.Timeout
	if mb == 0 {
		mb = 512
	}
	if timeout == 0 {
		timeout = 3 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	args := append(m.args[:len(m.args):len(m.args)], "-smp", strconv.Itoa(max(cfg.CPUs, 1)), "-m", strconv.Itoa(mb),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", image, "-initrd", initrd,
		"-append", "console="+m.console+" quiet panic=-1 mitigations=off "+m.append)
	cmd := exec.CommandContext(ctx, m.qemu, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	text := strings.ReplaceAll(out.String(), "\r", "")
	code, ok := exitCode(text)
	if !ok {
		t.Fatalf("the test machine did not finish (%v):\n%s", err, tail(text, 8000))
	}
	if _, after, found := strings.Cut(text, "init: "); found {
		text = "init: " + after
	}
	return Result{Output: text, ExitCode: code}
}

func exitCode(console string) (int, bool) {
	i := strings.LastIndex(console, job.Done)
	if i < 0 {
		return 0, false
	}
	var code int
	_, err := fmt.Sscan(console[i+len(job.Done):], &code)
	return code, err == nil
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
