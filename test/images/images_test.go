// Package images holds what goes out of the image store of a real engine, and
// what is told of it, against the disk, registries and the stock Docker CLI.
package images

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Each(m, "docker")) }

// fixture is one engine of a test.
type fixture struct {
	*testing.T
	*enginetest.Engine
}

// newFixture starts an engine with the image busybox, below dir or, when that is
// empty, a directory of its own. It is taken away after the test.
func newFixture(t *testing.T, dir string, args ...string) *fixture {
	t.Helper()
	f := &fixture{t, enginetest.For(t, dir, args...)}
	f.start()
	if err := f.ImportBusybox(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) start() {
	f.Helper()
	if err := f.Start(f.Context()); err != nil {
		f.Fatal(err)
	}
}

// try runs a command of the stock CLI.
func (f *fixture) try(args ...string) (string, error) {
	return enginetest.Output(f.Command("docker", args...))
}

func (f *fixture) ok(args ...string) string {
	f.Helper()
	out, err := f.try(args...)
	if err != nil {
		f.Fatal(err)
	}
	return out
}

// until waits for what a container says.
func (f *fixture) until(container, text string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	for !strings.Contains(f.ok("logs", container), text) {
		select {
		case <-ctx.Done():
			f.Fatalf("%s does not say %q", container, text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// du is what du(1) finds in directories of the data root, in bytes of blocks.
func (f *fixture) du(patterns ...string) (total int64) {
	f.Helper()
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(f.DataRoot(), pattern))
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			out, err := exec.Command("du", "-xsB1", path).Output()
			// What is made ahead may go, or be taken, while it is counted: whoever
			// compares counts again.
			if len(out) == 0 {
				f.Fatal(err)
			}
			n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
			if err != nil {
				f.Fatal(err)
			}
			total += n
		}
	}
	return total
}
