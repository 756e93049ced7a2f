package ociruntime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestMain lets the test binary be gantry-oci.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_OCI_MAIN") != "" {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// bench is a state directory and a bundle.
type bench struct {
	t            *testing.T
	root, bundle string
	cgroup       string
	spec         *specs.Spec
	stderr       string // what the last command wrote to
}

func newBench(t *testing.T, args ...string) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("busybox-static is not installed")
	}
	dir := t.TempDir()
	b := &bench{t: t, root: filepath.Join(dir, "state"), bundle: filepath.Join(dir, "bundle"), spec: exampleSpec()}
	b.cgroup = fmt.Sprintf("/gantry-test-oci-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	bin := filepath.Join(b.bundle, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "id", "true", "pwd", "env", "tty", "ls", "kill"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"proc", "sys", "dev", "tmp"} {
		if err := os.Mkdir(filepath.Join(b.bundle, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.spec.Process.Terminal = false
	b.spec.Process.Rlimits = nil
	b.spec.Process.Args = args
	b.spec.Linux.CgroupsPath = b.cgroup
	b.write()
	t.Cleanup(b.clean)
	return b
}

// write puts the specification into the bundle.
func (b *bench) write() {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// clean deletes what the test left and complains about what the runtime left.
func (b *bench) clean() {
	entries, _ := os.ReadDir(b.root)
	for _, e := range entries {
		if r := b.oci("delete", "--force", e.Name()); r.code != 0 {
			b.t.Errorf("cannot delete %s: %s", e.Name(), r.stderr)
		}
	}
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		b.t.Errorf("%d state directories were left behind", len(left))
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, _ := filepath.Glob(pattern + b.cgroup); len(left) > 0 {
			b.t.Errorf("cgroups were left behind: %v", left)
		}
	}
}

type result struct {
	code           int
	stdout, stderr string
}

// command is gantry-oci with the bench's state directory.
func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", b.root}, args...)...)
	cmd.Env = append(os.Environ(), "GANTRY_OCI_MAIN=1")
	cmd.Dir = b.bundle
	return cmd
}

// oci runs a command. Its output goes to files: a detached container holds on to
// it, and a pipe would make the test wait for that.
func (b *bench) oci(args ...string) result {
	b.t.Helper()
	return b.do(b.command(args...))
}

func (b *bench) do(cmd *exec.Cmd) result {
	b.t.Helper()
	read := func(f *os.File) string {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			b.t.Fatal(err)
		}
		f.Close()
		return string(data)
	}
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(b.t.TempDir(), "out")
		if err != nil {
			b.t.Fatal(err)
		}
		files[i] = f
	}
	if cmd.Stdout == nil {
		cmd.Stdout = files[0]
	}
	cmd.Stderr, b.stderr = files[1], files[1].Name()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), read(files[0]), read(files[1])}
}

// ok runs a command that has to succeed.
func (b *bench) ok(args ...string) string {
	b.t.Helper()
	r := b.oci(args...)
	if r.code != 0 {
		b.t.Fatalf("%v: exit code %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// fails runs a command that has to fail with a code and words of its message.
func (b *bench) fails(code int, words string, args ...string) {
	b.t.Helper()
	r := b.oci(args...)
	if r.code != code || !strings.Contains(r.stderr, words) {
		b.t.Errorf("%v: exit code %d, want %d, and %q, want %q in it", args, r.code, code, r.stderr, words)
	}
}

func (b *bench) state(id string) listed {
	b.t.Helper()
	var s listed
	if err := json.Unmarshal([]byte(b.ok("state", id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bench) wantStatus(id, want string) {
	b.t.Helper()
	if s := b.state(id); s.Status != want {
		b.t.Errorf("container %s is %s, want %s", id, s.Status, want)
	}
}

// eventually waits for something another process does.
func (b *bench) eventually(what string, done func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("it never happened: %s", what)
		}
	}
}

func (b *bench) stopped(id string) {
	b.t.Helper()
	b.eventually("container "+id+" stops", func() bool { return b.state(id).Status == "stopped" })
}

// hostFile is a file of the test, by its path and what is in it now.
type hostFile struct {
	t    *testing.T
	path string
}

func (b *bench) file(name string) hostFile {
	return hostFile{b.t, filepath.Join(b.t.TempDir(), name)}
}

func (f hostFile) lines() []string {
	data, _ := os.ReadFile(f.path)
	return strings.Fields(string(bytes.TrimSpace(data)))
}
