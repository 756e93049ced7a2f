package e2e

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// A person who asks for all that is unused to go gets back the space, and keeps
// what runs, with either client.
func TestPruneTheSystem(t *testing.T) {
	ctx := context.Background()
	e := startEngine(t, ctx)
	for _, client := range []string{"gantry", "docker"} {
		t.Run(client, func(t *testing.T) {
			if _, err := exec.LookPath("docker"); client == "docker" && err != nil {
				t.Skip("the stock Docker CLI is not installed")
			}
			pruneWith(t, e, client)
		})
	}
}

func pruneWith(t *testing.T, e *enginetest.Engine, client string) {
	run := func(args ...string) string {
		t.Helper()
		out, err := e.Command(client, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	gone := func(args ...string) {
		t.Helper()
		if out, err := e.Command(client, args...).CombinedOutput(); err == nil {
			t.Errorf("it is still there: %v: %s", args, out)
		}
	}
	defer e.Run("rm", "-f", "-v", "runs", "stopped")
	if err := e.ImportBusybox(); err != nil {
		t.Fatal(err)
	}
	// What is told to be freed is what the disk gets back.
	run("run", "--name", "sparse", "busybox", "truncate", "-s", "3G", "/sparse")
	if out := run("container", "prune", "-f"); strings.Contains(out, "GB") || !strings.Contains(out, "kB") {
		t.Errorf("a sparse file is told to have taken space: %s", out)
	}
	run("run", "-d", "--name", "runs", "-v", "/anonymous", "busybox", "sleep", "1000")
	run("run", "--name", "stopped", "-v", "/anonymous", "-v", "named:/d", "busybox", "sh", "-c", "head -c 300000 /dev/urandom >/big")
	dangling := run("commit", "stopped")
	run("commit", "stopped", "tagged")
	anonymous := run("inspect", "-f", `{{range .Mounts}}{{if ne .Name "named"}}{{.Name}}{{end}}{{end}}`, "stopped")

	out := run("system", "prune", "-f")
	if !strings.Contains(out, "Deleted Containers:") || !strings.Contains(out, "Total reclaimed space: ") {
		t.Errorf("prune says %s", out)
	}
	gone("inspect", "stopped")
	gone("image", "inspect", dangling)
	run("image", "inspect", "tagged")
	run("volume", "inspect", "named", anonymous)
	run("system", "prune", "-f", "--volumes")
	gone("volume", "inspect", anonymous)
	run("volume", "inspect", "named")
	if out = run("system", "prune", "-af"); !strings.Contains(out, "untagged: tagged:latest") {
		t.Errorf("prune of all says %s", out)
	}
	run("exec", "runs", "true")
	run("network", "inspect", "bridge", "host", "none")
	run("network", "prune", "-f")
	if client == "docker" { // ours has no builder
		run("builder", "prune", "-f")
	}
	run("image", "prune", "-af")
	run("container", "prune", "-f")
	if out = run("volume", "prune", "-af"); !strings.Contains(out, "named") {
		t.Errorf("prune of volumes says %s", out)
	}
	run("rm", "-f", "-v", "runs")
	run("system", "prune", "-af", "--volumes")
	// Of the images only the directories of the store are left.
	out = run("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}")
	if !regexp.MustCompile(`^Images 0 \d\d\.\d+kB\nContainers 0 0B\nLocal Volumes 0 0B\nBuild Cache 0 0B$`).MatchString(out) {
		t.Errorf("what is left:\n%s", out)
	}
}
