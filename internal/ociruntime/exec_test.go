package ociruntime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestExec(t *testing.T) {
	b := newBench(t, "sleep", "1000")
	b.ok("run", "-d", "c")
	for _, tc := range []struct {
		name string
		args []string
		code int
		out  string
	}{
		{"exit code", []string{"c", "sh", "-c", "exit 9"}, 9, ""},
		{"output", []string{"c", "sh", "-c", "echo hi"}, 0, "hi\n"},
		{"working directory", []string{"--cwd", "/tmp", "c", "pwd"}, 0, "/tmp\n"},
		{"environment", []string{"-e", "A=b c", "c", "sh", "-c", "echo $A"}, 0, "b c\n"},
		{"user", []string{"--user", "12:34", "-g", "56", "c", "sh", "-c", "id -u; id -g; id -G"}, 0, "12\n34\n34 56\n"},
		{"flags of the program", []string{"c", "sh", "-c", "echo $0 $1", "-x", "--tty"}, 0, "-x --tty\n"},
		{"capability", []string{"--cap", "net_raw", "c", "sh", "-c", "while read -r a x; do [ $a = CapEff: ] && echo $x; done < /proc/self/status; true"}, 0, "0000000020002420\n"},
		{"not found", []string{"c", "no-such"}, 127, ""},
		{"not executable", []string{"c", "/tmp"}, 126, ""},
		{"nothing", []string{"c"}, 255, ""},
		{"bad user", []string{"--user", "me", "c", "true"}, 255, ""},
		{"no container", []string{"d", "true"}, 255, ""},
	} {
		r := b.oci(append([]string{"exec"}, tc.args...)...)
		if r.code != tc.code || tc.out != "" && r.stdout != tc.out {
			t.Errorf("%s: %+v, want %d and %q", tc.name, r, tc.code, tc.out)
		}
	}
}

func TestExecDetached(t *testing.T) {
	b := newBench(t, "sleep", "1000")
	b.ok("run", "-d", "c")
	p := specs.Process{Args: []string{"sleep", "2000"}, Cwd: "/", Env: b.spec.Process.Env}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "process.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	pid := b.file("pid")
	b.ok("exec", "--detach", "--pid-file", pid.path, "--process", file, "c")
	if out := b.ok("ps", "c"); !strings.Contains(out, "sleep 2000") || len(pid.lines()) != 1 || !strings.Contains(out, pid.lines()[0]) {
		t.Errorf("ps says %q, the PID file %v", out, pid.lines())
	}
	// All processes go with the container.
	b.ok("delete", "--force", "c")
}
