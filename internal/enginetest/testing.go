package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Each is for the TestMain of a package whose tests start engines of their own.
// Without root, or one of the programs it needs, the package is skipped with the
// reason; the engine is built once.
func Each(m *testing.M, needs ...string) int {
	if !possible(needs) {
		return 0
	}
	dir, err := os.MkdirTemp("", "gantry-test-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		var bin string
		if bin, err = Programs(dir); err == nil {
			os.Setenv("GANTRY_BIN", bin)
		}
	}
	if err != nil {
		fmt.Println("cannot build the engine:", err)
		return 1
	}
	return m.Run()
}

// One is for the TestMain of a package whose tests share one engine, with the
// image busybox. It is prepared before it is started; run runs the tests.
func One(run func() int, prepare func(*Engine) error) int {
	if !possible(nil) {
		return 0
	}
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "gantry-test")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	e, err := New(dir)
	if err == nil {
		err = prepare(e)
	}
	if err == nil {
		err = e.Start(ctx)
	}
	if err == nil {
		err = e.ImportBusybox()
	}
	code := 1
	if err != nil {
		fmt.Println("cannot start an engine:", err)
	} else if code = run(); code != 0 {
		fmt.Println(e.logged())
	}
	if err := e.Close(ctx); err != nil {
		fmt.Println("the engine did not leave the host clean:", err)
		code = 1
	}
	return code
}

func possible(needs []string) bool {
	if os.Getuid() != 0 {
		fmt.Println("SKIP: an engine needs root")
		return false
	}
	for _, program := range needs {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Println("SKIP: " + program + " is not installed")
			return false
		}
	}
	return true
}

// Rounds is how often a scenario is repeated: as often as GANTRY_SOAK says, which
// is how script/soak asks for more, or so often.
func Rounds(t testing.TB, usually int) int {
	n := usually
	if text := os.Getenv("GANTRY_SOAK"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("GANTRY_SOAK is %q, not how often scenarios are repeated", text)
		}
	}
	return n
}

// For makes an engine for a test, which starts it. Its roots are below dir, or a
// directory of its own when that is empty. At the end of the test it is taken off
// the host, and where the test failed, it is told what the engine logged.
func For(t testing.TB, dir string, args ...string) *Engine {
	t.Helper()
	var err error
	if dir == "" { // t.TempDir is too long for a socket
		if dir, err = os.MkdirTemp("", "gantry-test"); err != nil {
			t.Fatal(err)
		}
	}
	e, err := New(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(e.logged())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if e.Pid() == 0 && e.started() {
			e.Start(ctx) // it knows what there is to remove
		}
		if err := e.Close(ctx); err != nil {
			t.Errorf("the engine did not leave the host clean: %v", err)
		}
	})
	return e
}

// Running is For of an engine that runs and has the image busybox. The test is skipped
// where there can be none.
func Running(t testing.TB) *Engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("an engine needs root")
	}
	e := For(t, "")
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.ImportBusybox(); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *Engine) started() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log != nil
}

// logged is the last that the daemons and the shim have logged.
func (e *Engine) logged() string {
	shim, _ := os.ReadFile(filepath.Join(e.exec, "shim.log"))
	return fmt.Sprintf("gantryd logged:\n%s\ngantry-shim logged:\n%s", tail(e.Log(), 60), tail(string(shim), 60))
}

func tail(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// RegistryFor runs DockerRegistry for a test, which is skipped where that is not
// installed.
func RegistryFor(t testing.TB, extra ...string) (addr string) {
	t.Helper()
	addr, stop, err := DockerRegistry(t.TempDir(), extra...)
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return addr
}

// Output runs a command and returns its standard output without the last newline;
// the error holds what it wrote to standard error.
func Output(cmd *exec.Cmd) (string, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		args := append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...)
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
