package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// Two engines on one machine: a name, a volume and a port of one are nothing to
// the other, and taking one away leaves the other's containers alone.
func TestTwoEnginesSideBySide(t *testing.T) {
	ctx := context.Background()
	other, err := enginetest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			other.Close(ctx)
		}
	}()
	if err := other.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := other.ImportBusybox(); err != nil {
		t.Fatal(err)
	}
	run := func(e *enginetest.Engine, args ...string) string {
		t.Helper()
		out, err := e.Run(args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	addresses := map[string]bool{}
	for _, e := range []*enginetest.Engine{shared, other} {
		run(e, "run", "-d", "--name", "twin", "-v", "twin-data:/d", "busybox", "sh", "-c", "hostname > /d/who; exec sleep 1000")
		addresses[run(e, "inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "twin")] = true
	}
	defer shared.Run("volume", "rm", "twin-data")
	defer shared.Run("rm", "-f", "twin")
	if len(addresses) != 2 {
		t.Errorf("both containers have the address %v", addresses)
	}
	if shared.Instance() == other.Instance() {
		t.Errorf("both engines are called %s", other.Instance())
	}
	if ids := run(other, "ps", "-q", "--no-trunc"); strings.Contains(ids, "\n") || ids == "" {
		t.Errorf("the other engine sees %q", ids)
	}
	if a, b := run(shared, "exec", "twin", "cat", "/d/who"), run(other, "exec", "twin", "cat", "/d/who"); a == b {
		t.Errorf("the volume is shared: both say %q", a)
	}
	if err := other.Close(ctx); err != nil {
		t.Errorf("the other engine did not leave the host clean: %v", err)
	}
	closed = true
	if got := run(shared, "exec", "twin", "echo", "alive"); got != "alive" {
		t.Errorf("after the other engine has gone: %q", got)
	}
	if got := run(shared, "inspect", "-f", "{{.State.Running}}", "twin"); got != "true" {
		t.Errorf("running: %s", got)
	}
}
