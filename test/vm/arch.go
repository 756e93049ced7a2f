package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Arch is the processor of a machine, as Go names it.
type Arch string

// The architectures there are machines of. The zero Arch is AMD64.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// machine is what differs between the architectures.
type machine struct {
	qemu    string   // the program
	pkg     string   // the Debian package it is in
	kernel  string   // the package that stands for the newest kernel
	console string   // the serial port
	args    []string // of qemu
	append  string   // to the kernel's command line
}

func (a Arch) machine() (machine, error) {
	switch a.name() {
	case AMD64:
		return machine{
			qemu: "qemu-system-x86_64", pkg: "qemu-system-x86", kernel: "linux-image-cloud-amd64", console: "ttyS0",
			// Always by emulation: nested KVM is there on some machines and broken
			// on half of those.
			args: []string{"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"},
			// A busy host delivers too few timer interrupts for the kernel's check.
			append: "random.trust_cpu=on tsc=reliable no_timer_check",
		}, nil
	case ARM64:
		return machine{
			qemu: "qemu-system-aarch64", pkg: "qemu-system-arm", kernel: "linux-image-cloud-arm64", console: "ttyAMA0",
			// The processor of the clouds, which has no pointer authentication: to
			// emulate that costs half of the speed.
			args: []string{"-M", "virt,gic-version=3", "-accel", "tcg,thread=multi", "-cpu", "neoverse-n1"},
		}, nil
	}
	return machine{}, fmt.Errorf("there is no test machine for %s", a)
}

func (a Arch) name() Arch {
	if a == "" {
		return AMD64
	}
	return a
}

// Package returns the directory of the user's cache where a Debian package is
// unpacked, after fetching it if need be.
func (a Arch) Package(name string) (string, error) {
	return cached(a.cacheName("package-"+name), func(cache string) (*apt, string, error) {
		apt, err := a.apt(cache)
		return apt, name, err
	})
}

// cacheName tells the packages of the architectures apart.
func (a Arch) cacheName(name string) string {
	if a.name() == AMD64 {
		return name
	}
	return name + "-" + string(a)
}

// Build compiles a static program and returns the file.
func (a Arch) Build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	a.goTool(t, "build", "-ldflags=-s -w", "-o", out, pkg)
	return out
}

// BuildAll compiles the programs that a pattern names into a directory, and
// returns that.
func (a Arch) BuildAll(t *testing.T, pattern string) string {
	t.Helper()
	dir := t.TempDir() + "/"
	a.goTool(t, "build", "-ldflags=-s -w", "-o", dir, pattern)
	return dir
}

// BuildTest compiles the tests of a package into a static program.
func (a Arch) BuildTest(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	a.goTool(t, "test", "-c", "-ldflags=-s -w", "-o", out, pkg)
	return out
}

func (a Arch) goTool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+string(a.name()))
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s for %s: %v\n%s", args[len(args)-1], a.name(), err, b)
	}
}

// apt asks for packages of one architecture.
type apt struct{ env []string }

// apt returns this host's own where it is of that architecture. For another one
// there is a configuration in the cache, with lists and a status of its own and
// the host's sources: what is installed here does not matter and is not touched.
func (a Arch) apt(cache string) (*apt, error) {
	if string(a.name()) == runtime.GOARCH {
		return &apt{}, nil
	}
	dir := filepath.Join(cache, "apt-"+string(a.name()))
	for _, d := range []string{"lists/partial", "cache/archives/partial", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	conf := strings.NewReplacer("DIR", dir, "ARCH", string(a.name())).Replace(`APT::Architecture "ARCH";
APT::Architectures { "ARCH"; };
Dir::State "DIR/state";
Dir::State::Lists "DIR/lists";
Dir::State::status "DIR/state/status";
Dir::Cache "DIR/cache";
`)
	for name, content := range map[string]string{"apt.conf": conf, "state/status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	apt := &apt{env: []string{"APT_CONFIG=" + filepath.Join(dir, "apt.conf")}}
	// A source that has nothing for this architecture is no failure: whether the
	// package can be had is what counts.
	apt.command("apt-get", "update", "-q").Run()
	return apt, nil
}

func (a *apt) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), a.env...)
	return cmd
}
