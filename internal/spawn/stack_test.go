package spawn

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// What a person would lose: every fuzz target of a package that can fork. What the
// child runs has a small stack, of which the counters of fuzzing take some.
func TestStackLeavesRoomForFuzzing(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("it builds a program: ", err)
	}
	out, err := exec.Command("go", "test", "-c", "-fuzz", ".", "-o", filepath.Join(t.TempDir(), "fuzz"), ".").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
