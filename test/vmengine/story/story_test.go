package story

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// engine is the one of this machine.
var engine *enginetest.Engine

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv("GANTRY_TEST_MACHINE") == "" {
		fmt.Println("SKIP: these tests own the machine they run on; test/vmengine boots one for them")
		return 0
	}
	ctx := context.Background()
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	uptime, _, _ := strings.Cut(string(b), " ")
	began := time.Now()
	err = prepare()
	if err == nil {
		engine, err = enginetest.New("/run/story")
	}
	if _, missing := os.Stat(runc); err == nil && missing == nil {
		engine.Args = append(engine.Args, "--add-runtime", "runc="+runc)
	}
	if err == nil {
		err = engine.Start(ctx)
	}
	if err == nil {
		err = engine.ImportBusybox()
	}
	if err != nil {
		fmt.Println("cannot start an engine:", err)
		return 1
	}
	ready := time.Now()
	code := m.Run()
	fmt.Printf("\nstory: booted in %ss, engine ready after %v, tests took %v\n",
		uptime, ready.Sub(began).Round(time.Millisecond), time.Since(ready).Round(time.Millisecond))
	if code != 0 {
		fmt.Println("gantryd logged:\n" + engine.Log())
	}
	if err := engine.Close(ctx); err != nil {
		fmt.Println("the engine did not leave the machine clean:", err)
		code = 1
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/g*"); len(left) > 0 {
		fmt.Println("the engine left cgroups behind:", left)
		code = 1
	}
	return code
}

// prepare makes of the bare machine what an installed system is.
func prepare() error {
	if err := os.MkdirAll("/run/story", 0o755); err != nil {
		return err
	}
	for _, command := range []string{
		"busybox mount -t securityfs securityfs /sys/kernel/security",
		"busybox ip link set lo up",
		"busybox modprobe loop",
	} {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
	return nil
}

// gantry runs a command that must succeed and returns its standard output.
func gantry(t *testing.T, args ...string) string {
	t.Helper()
	out, err := engine.Run(args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// outcome is how a command ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// try runs a command that may fail.
func try(t *testing.T, args ...string) outcome {
	t.Helper()
	cmd := engine.Command("gantry", args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// background starts a container that sleeps, to be removed after the test, and
// returns its ID.
func background(t *testing.T, flags ...string) string {
	t.Helper()
	return start(t, flags, "busybox", "sleep", "1000")
}

func start(t *testing.T, flags []string, command ...string) string {
	t.Helper()
	args := append([]string{"run", "-d"}, flags...)
	id := gantry(t, append(args, command...)...)
	t.Cleanup(func() { try(t, "rm", "-f", "-v", id) })
	return id
}

// inspect decodes what inspect prints about a field of a container.
func inspect[T any](t *testing.T, id, field string) T {
	t.Helper()
	var v T
	out := gantry(t, "inspect", "-f", "{{json "+field+"}}", id)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("inspect printed %q: %v", out, err)
	}
	return v
}

// cgroupOf returns the directory of the cgroup of a container's first process.
func cgroupOf(t *testing.T, id string) string {
	t.Helper()
	return cgroupOfProcess(t, inspect[int](t, id, ".State.Pid"))
}

func cgroupOfProcess(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	path, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "0::")
	if !ok || strings.Contains(path, "\n") {
		t.Fatalf("process %d is in the cgroups %q", pid, b)
	}
	return filepath.Join("/sys/fs/cgroup", path)
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// want compares the files of a cgroup.
func want(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, value := range files {
		if got := read(t, dir, name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}
