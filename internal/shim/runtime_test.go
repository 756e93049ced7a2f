package shim

import (
	"errors"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/ocirt"
)

func TestLoggedError(t *testing.T) {
	for _, test := range []struct{ name, log, want string }{
		{"runc", `{"level":"warning","msg":"careful","time":"2026"}` + "\n" +
			`{"level":"error","msg":"runc create failed: no luck","time":"2026"}` + "\n", "runc create failed: no luck"},
		{"the last error", `{"level":"error","msg":"one"}` + "\n" + `{"level":"error","msg":"two"}` + "\n" + `{"level":"debug","msg":"three"}`, "two"},
		{"crun", `{"msg":"executable file not found","level":"error","time":"2026"}`, "executable file not found"},
		{"no level", `{"msg":"broken"}`, "broken"},
		{"text", "one\ntwo\n", "two"},
		{"only warnings", `{"level":"warning","msg":"careful"}` + "\n", ""},
		{"cut off", `{"level":"error","ms`, ""},
		{"empty", "", ""},
	} {
		if got := loggedError([]byte(test.log)); got != test.want {
			t.Errorf("%s: %q, not %q", test.name, got, test.want)
		}
	}
}

func TestExecErrorOfRuntimes(t *testing.T) {
	for _, test := range []struct {
		program, said string
		want          error
	}{
		{"nope", `runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH`, ErrNotFound},
		{"/nope", `runc create failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory`, ErrNotFound},
		{"/etc", `runc create failed: unable to start container process: exec: "/etc": is a directory`, ErrNotExecutable},
		{"/etc/passwd", `exec failed: unable to start container process: exec: "/etc/passwd": permission denied`, ErrNotExecutable},
		{"nope", "executable file `nope` not found in $PATH: No such file or directory", ErrNotFound},
		{"/etc/passwd", "open executable: Permission denied", ErrNotExecutable},
		{"/x", "exec /x: exec format error", ErrNotExecutable},
		{"sh", `runc create failed: error mounting "/nothing" to rootfs at "/x": stat /nothing: no such file or directory`, nil},
		{"sh", "open /sys/fs/cgroup/memory: permission denied", nil},
		{"sh", "unable to execute the hook", nil},
	} {
		err := execError(&specs.Process{Args: []string{test.program}}, test.said)
		var e *ocirt.ExecError
		switch {
		case test.want == nil && err != nil, test.want != nil && !errors.Is(err, test.want):
			t.Errorf("%s: %v", test.said, err)
		case err != nil && (!errors.As(err, &e) || e.Path != test.program):
			t.Errorf("%s: about %v", test.said, err)
		}
	}
	if err := execError(nil, "executable file not found"); err != nil {
		t.Errorf("without a process: %v", err)
	}
}

func FuzzLoggedError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"runc create failed"}`))
	f.Add([]byte("text\nlast"))
	f.Add([]byte("{\n{}\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		execError(&specs.Process{Args: []string{"sh"}}, loggedError(log))
	})
}
