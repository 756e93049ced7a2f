package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// podman is the podman of the machine, with everything it keeps in a directory
// of the test, and this test binary as its runtime.
type podman struct {
	t      *testing.T
	global []string
	env    []string
}

func newPodman(t *testing.T) (*podman, *bench) {
	t.Helper()
	b := newBench(t, "true")
	path, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("podman is not installed")
	}
	if _, err := exec.LookPath("conmon"); err != nil {
		if _, err := os.Stat("/usr/bin/conmon"); err != nil {
			t.Skip("conmon is not installed")
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	runtime := filepath.Join(dir, "gantry-oci")
	conf := filepath.Join(dir, "containers.conf")
	for name, text := range map[string]string{
		runtime: fmt.Sprintf("#!/bin/sh\nGANTRY_OCI_MAIN=1 exec %s --root %s \"$@\"\n", exe, b.root),
		// Podman asks for limits that need CAP_SYS_RESOURCE.
		conf: "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := &podman{t: t, env: append(os.Environ(), "CONTAINERS_CONF="+conf)}
	p.global = []string{path, "--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp",
		"--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime", runtime}
	before := libpodCgroups()
	t.Cleanup(func() {
		p.do("rm", "--all", "--force", "-t", "0")
		// Podman never removes the parents it makes.
		for _, d := range slices.Backward(libpodCgroups()) {
			if !slices.Contains(before, d) {
				_ = os.Remove(d)
			}
		}
	})
	if r := p.do("info"); r.code != 0 {
		t.Skipf("podman does not work here: %s", r.stderr)
	}
	return p, b
}

// libpodCgroups lists what podman makes, parents first.
func libpodCgroups() []string {
	var all []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		for _, below := range []string{"/libpod_parent", "/libpod_parent/*", "/conmon", "/libpod_parent/conmon"} {
			dirs, _ := filepath.Glob(root + below)
			for _, d := range dirs {
				if fi, err := os.Stat(d); err == nil && fi.IsDir() {
					all = append(all, d)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (p *podman) do(args ...string) result {
	p.t.Helper()
	cmd := exec.Command(p.global[0], append(slices.Clone(p.global[1:]), args...)...)
	cmd.Env = p.env
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// Podman runs containers with gantry-oci as it does with runc and crun.
func TestPodman(t *testing.T) {
	if testing.Short() {
		t.Skip("starts podman: left out of short runs")
	}
	p, b := newPodman(t)
	rootfs := filepath.Join(b.bundle, "rootfs")
	if err := os.WriteFile(filepath.Join(rootfs, "plain"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) result {
		t.Helper()
		return p.do(slices.Concat([]string{"run", "--rm", "--network", "none", "--rootfs", rootfs}, args)...)
	}
	for _, tc := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"echo", "hello"}, 127, ""},
		{[]string{"sh", "-c", "echo hello; exit 5"}, 5, "hello\n"},
		{[]string{"/plain"}, 126, ""},
	} {
		if r := run(tc.args...); r.code != tc.code || tc.out != r.stdout {
			t.Errorf("podman run %v: %+v, want %d and %q", tc.args, r, tc.code, tc.out)
		}
	}
	r := p.do("run", "-d", "--name", "x", "--network", "none", "--memory", "64m", "--rootfs", rootfs, "sleep", "1000")
	if r.code != 0 {
		t.Fatal(r.stderr)
	}
	if r := p.do("exec", "x", "sh", "-c", "echo in; exit 4"); r.code != 4 || r.stdout != "in\n" {
		t.Errorf("podman exec: %+v", r)
	}
	for _, args := range [][]string{{"pause", "x"}, {"unpause", "x"}, {"top", "x"}, {"kill", "-s", "KILL", "x"}, {"wait", "x"}, {"rm", "x"}} {
		if r := p.do(args...); r.code != 0 {
			t.Errorf("podman %v: %+v", args, r)
		}
	}
}
