package story

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The runtime by itself, with a bundle made of busybox.
func TestOCI(t *testing.T) {
	bundle := t.TempDir()
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"busybox", "sh", "cat"} {
		if err := os.WriteFile(filepath.Join(bundle, "rootfs/bin", name), busybox, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	oci := func(args ...string) (string, error) {
		cmd := exec.Command("/bin/gantry-oci", append([]string{"--root", filepath.Join(bundle, "state")}, args...)...)
		cmd.Dir = bundle
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := oci("spec"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var spec map[string]any
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err == nil {
		err = json.Unmarshal(b, &spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	process := spec["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"sh", "-c", "cat /proc/self/cgroup /sys/fs/cgroup/pids.max; exit 9"}
	spec["linux"].(map[string]any)["cgroupsPath"] = "/oci/story"
	spec["linux"].(map[string]any)["resources"] = map[string]any{"pids": map[string]any{"limit": 33}}
	if b, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := oci("run", "story")
	exit, ok := err.(*exec.ExitError)
	if !ok || exit.ExitCode() != 9 || !strings.Contains(out, "33\n") {
		t.Errorf("run: %v: %s", err, out)
	}
	if _, err := os.Stat("/sys/fs/cgroup/oci/story"); err == nil {
		t.Error("the cgroup is still there")
	}
}
