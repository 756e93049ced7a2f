// Package runtime runs containers with external OCI runtimes: an engine must
// hold what runc or gantry-oci has made as it holds what it has made itself.
package runtime

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// patience is how long anything that must happen may take on a busy machine.
const patience = 20 * time.Second

var (
	shared *enginetest.Engine
	have   = map[string]string{} // programs by the name of the runtime
)

func TestMain(m *testing.M) { os.Exit(enginetest.One(m.Run, prepare)) }

// prepare has the engine know every runtime that is installed.
func prepare(e *enginetest.Engine) error {
	shared = e
	have["gantry-oci"] = filepath.Join(shared.Bin, "gantry-oci")
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			have[name] = path
		}
	}
	for name, path := range have {
		shared.Args = append(shared.Args, "--add-runtime", name+"="+path)
	}
	shared.Args = append(shared.Args, "--add-runtime", "missing=/nothing/here", "--add-runtime", "moody="+moody())
	if err := os.WriteFile(moody(), []byte(moodyScript), 0o755); err != nil {
		return err
	}
	return mountShared(shared.ExecRoot())
}

// mountShared makes the exec root what /run is on most machines: a tmpfs whose
// mounts appear in other mount namespaces too. The engine's Close unmounts it.
func mountShared(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=711"); err != nil {
		return err
	}
	return unix.Mount("", dir, "", unix.MS_SHARED, "")
}

// fixture is one runtime in the shared engine.
type fixture struct {
	*testing.T
	runtime string
}

// each runs a test with every runtime that works on this machine.
func each(t *testing.T, test func(f *fixture)) {
	for _, name := range []string{"gantry-oci", "runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			if have[name] == "" {
				t.Skipf("%s is not installed", name)
			}
			f := &fixture{T: t, runtime: name}
			if name == "crun" {
				if r := f.gantry("run", "--rm", "--runtime", name, "busybox", "true"); r.code != 0 {
					t.Skipf("crun does not work on this machine: %s", r.err)
				}
			}
			test(f)
			f.clean()
		})
	}
}

// result is what a command has come to.
type result struct {
	out, err string
	code     int
}

func (f *fixture) gantry(args ...string) result { return f.fed("", args...) }

// fed runs a command with that input.
func (f *fixture) fed(input string, args ...string) result {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), patience)
	defer cancel()
	plain := shared.Command("gantry", args...)
	cmd := exec.CommandContext(ctx, plain.Path, args...)
	cmd.Env = plain.Env
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		f.Fatalf("gantry %s: %v: %s", strings.Join(args, " "), err, errOut.String())
	}
	return result{strings.TrimSuffix(out.String(), "\n"), strings.TrimSpace(errOut.String()), cmd.ProcessState.ExitCode()}
}

func (f *fixture) ok(args ...string) string {
	f.Helper()
	r := f.gantry(args...)
	if r.code != 0 {
		f.Fatalf("gantry %s: exit code %d: %s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// run are the arguments that run a container with the runtime.
func (f *fixture) run(args ...string) []string {
	return append([]string{"run", "--runtime", f.runtime}, args...)
}

// detached starts a container and returns its ID.
func (f *fixture) detached(args ...string) string {
	f.Helper()
	id := f.ok(f.run(append([]string{"-d"}, args...)...)...)
	f.Cleanup(func() { shared.Run("rm", "-f", id) })
	return id
}

func (f *fixture) want(what string, got, want any) {
	f.Helper()
	if got != want {
		f.Errorf("%s is %q, not %q", what, got, want)
	}
}

// inspect returns a field of a container.
func (f *fixture) inspect(id, field string) string {
	f.Helper()
	return f.ok("inspect", "--format", "{{"+field+"}}", id)
}

// until waits for something to become true.
func (f *fixture) until(what string, reached func() bool) {
	f.Helper()
	for deadline := time.Now().Add(patience); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("waited in vain until %s", what)
		}
	}
}

// clean removes all containers and looks that nothing is left of them.
func (f *fixture) clean() {
	if ids := strings.Fields(f.ok("ps", "-aq")); len(ids) > 0 {
		f.ok(append([]string{"rm", "-f"}, ids...)...)
	}
	f.forgotten()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		f.Fatal(err)
	}
	if strings.Contains(string(mounts), shared.ExecRoot()+"/bundles") {
		f.Errorf("something is mounted on the host:\n%s", mounts)
	}
}

// forgotten waits until neither the shim nor the runtime knows a container.
func (f *fixture) forgotten() {
	f.Helper()
	for _, dir := range []string{"bundles", filepath.Join("runtimes", f.runtime)} {
		path := filepath.Join(shared.ExecRoot(), dir)
		f.until(path+" is empty", func() bool {
			left, err := os.ReadDir(path)
			return err != nil || len(left) == 0
		})
	}
}

// killDaemon kills the daemon and starts another.
func (f *fixture) killDaemon() {
	f.Helper()
	if err := shared.Kill(syscall.SIGKILL); err != nil {
		f.Fatal(err)
	}
	if err := shared.Start(f.Context()); err != nil {
		f.Fatal(err)
	}
}

// killShim kills the io role. The daemon starts another.
func (f *fixture) killShim() {
	f.Helper()
	c, err := shared.Shim(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	info, err := c.Info(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	if err := syscall.Kill(info.Pid, syscall.SIGKILL); err != nil {
		f.Fatal(err)
	}
}
