// Package images holds what goes out of the image store of a real engine, and
// what is told of it, against the disk, registries and the stock Docker CLI.
package images

import (
	"bytes"
	"context"
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

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Println("SKIP: these tests start containers and need root")
		return 0
	}
	if _, err := exec.LookPath("docker"); err != nil {
		fmt.Println("SKIP: the stock Docker CLI is not installed")
		return 0
	}
	dir, err := os.MkdirTemp("", "gantry-images-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		var bin string
		if bin, err = enginetest.Programs(dir); err == nil {
			os.Setenv("GANTRY_BIN", bin)
		}
	}
	if err != nil {
		fmt.Println("cannot build the engine:", err)
		return 1
	}
	return m.Run()
}

// fixture is one engine of a test.
type fixture struct {
	*testing.T
	*enginetest.Engine
}

// newFixture starts an engine with the image busybox, below dir or, when that is
// empty, a directory of its own. It is taken away after the test.
func newFixture(t *testing.T, dir string, args ...string) *fixture {
	t.Helper()
	var err error
	if dir == "" {
		if dir, err = os.MkdirTemp("", "gantry-images"); err != nil {
			t.Fatal(err)
		}
	}
	e, err := enginetest.New(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t, e}
	t.Cleanup(f.close)
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

func (f *fixture) close() {
	if f.Failed() {
		f.Logf("gantryd logged:\n%s", f.Engine.Log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if f.Pid() == 0 {
		f.Start(ctx)
	}
	if err := f.Close(ctx); err != nil {
		f.Errorf("the engine did not leave the host clean: %v", err)
	}
}

// try runs a command of the stock CLI.
func (f *fixture) try(args ...string) (string, error) {
	cmd := f.Command("docker", args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
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
			if err != nil {
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
