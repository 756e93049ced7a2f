package internal

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A command costs what its request costs only as long as little happens before
// main: no package that gantry links makes more of its tables there than this.
// (Five regular expressions were 840 allocations and a tenth of a start.)
const mostAllocations = 64

func TestGantryBeginsWithoutWork(t *testing.T) {
	gantry := filepath.Join(t.TempDir(), "gantry")
	if out, err := exec.Command("go", "build", "-o", gantry, "../cmd/gantry").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(gantry, "--version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("gantry --version: %v\n%s", err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // init PACKAGE @0.5 ms, 0.1 ms clock, 312 bytes, 7 allocs
		if len(f) < 4 || f[0] != "init" {
			continue
		}
		seen++
		if n, err := strconv.Atoi(f[len(f)-2]); err != nil || n > mostAllocations {
			t.Errorf("package %s does work before main: %s", f[1], line)
		}
	}
	if seen < 10 {
		t.Errorf("the runtime lists too few beginnings:\n%s", out)
	}
}
