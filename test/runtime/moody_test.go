package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// moody is gantry-oci, except that it hangs or fails at the command its mood
// file names.
func moody() string { return filepath.Join(shared.Dir, "moody") }

const moodyScript = `#!/bin/sh
d=$(dirname "$0")
read mood command <"$d/mood"
for word in "$@"; do
	[ "$word" = "$command" ] || continue
	case $mood in
	fail) echo "no $command today" >&2; exit 1;;
	silent) exit 0;;
	hang) echo >"$d/hangs"; exec sleep 60;;
	esac
done
exec "$(cat "$d/oci")" "$@"
`

func (f *fixture) mood(words string) {
	f.Helper()
	os.Remove(filepath.Join(shared.Dir, "hangs"))
	for name, text := range map[string]string{"mood": words + "\n", "oci": have["gantry-oci"]} {
		if err := os.WriteFile(filepath.Join(shared.Dir, name), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
}

// A runtime that fails half-way leaves nothing, and the container starts as soon
// as it does not.
func TestFailures(t *testing.T) {
	f := &fixture{T: t, runtime: "moody"}
	for _, test := range []struct{ mood, says string }{
		{"fail create", "runtime moody: no create today"},
		{"fail start", "runtime moody: no start today"},
		{"silent create", "the runtime moody does not tell the process it has started"},
	} {
		f.mood(test.mood)
		r := f.gantry(f.run("--name", "moody", "busybox", "true")...)
		if r.code == 0 || !strings.Contains(r.err, test.says) {
			f.Errorf("%s: exit code %d, %s", test.mood, r.code, r.err)
		}
		f.mood("good")
		f.want("exit code of the next start", f.gantry("start", "-a", "moody").code, 0)
		f.clean()
	}
	f.mood("fail delete")
	id := f.detached("busybox", "true")
	f.want("exit code", f.ok("wait", id), "0")
	f.want("exit code of a container that was not deleted", f.gantry("start", "-a", id).code, 0)
	f.clean()
}

// What io did not survive starting is not there.
func TestShimKilledWhileCreating(t *testing.T) {
	f := &fixture{T: t, runtime: "moody"}
	f.mood("hang create")
	done := make(chan result, 1)
	go func() {
		defer close(done) // also when it fails the test
		done <- f.gantry(f.run("--name", "hanging", "busybox", "true")...)
	}()
	f.until("the runtime hangs", func() bool {
		_, err := os.Stat(filepath.Join(shared.Dir, "hangs"))
		return err == nil
	})
	f.killShim()
	if r := <-done; r.code == 0 {
		f.Errorf("it started")
	}
	f.forgotten()
	f.mood("good")
	f.want("exit code of the next start", f.gantry("start", "-a", "hanging").code, 0)
	f.clean()
}

// The default runtime and arguments for a runtime come from the file.
func TestDefault(t *testing.T) {
	e := enginetest.For(t, "")
	wrapper, config := filepath.Join(e.Dir, "wrapper"), filepath.Join(e.Dir, "daemon.json")
	script := "#!/bin/sh\necho \"$1\" >>" + e.Dir + "/calls\nshift\nexec " + e.Bin + "/gantry-oci \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	raw, _ := json.Marshal(map[string]any{
		"default-runtime": "mine",
		"runtimes":        map[string]any{"mine": map[string]any{"path": wrapper, "runtimeArgs": []string{"--marked"}}},
	})
	if err := os.WriteFile(config, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	e.Args = []string{"--config-file", config}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.ImportBusybox(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"busybox"}, {"--runtime", "gantry", "busybox"}, {"--runtime", "runc", "busybox"}} {
		if out, err := e.Run(append(append([]string{"run", "--rm"}, args...), "echo", "there")...); err != nil || out != "there" {
			t.Errorf("run %v: %q, %v", args, out, err)
		}
	}
	calls, err := os.ReadFile(filepath.Join(e.Dir, "calls"))
	if got := strings.Fields(string(calls)); err != nil || len(got) < 2 || len(got) > 3 {
		t.Errorf("the runtime was called %d times, instead of for one container: %q", len(got), calls)
	}
	for _, call := range strings.Fields(string(calls)) {
		if call != "--marked" {
			t.Errorf("it was called with %q first", call)
		}
	}
	if name, err := e.Run("info", "--format", "{{.DefaultRuntime}}"); err != nil || name != "mine" {
		t.Errorf("info says %q, %v", name, err)
	}
}
