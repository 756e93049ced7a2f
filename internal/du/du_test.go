package du

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// One who compares our numbers with du(1) must find the same.
func TestTreeIsWhatDuSays(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a/small", []byte("x"))
	write("a/b/big", make([]byte, 300000))
	write("sparse", nil)
	for _, err := range []error{
		os.Truncate(filepath.Join(dir, "sparse"), 5<<30),
		os.Link(filepath.Join(dir, "a/b/big"), filepath.Join(dir, "linked")),
		os.Symlink("/usr", filepath.Join(dir, "usr")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "a"), filepath.Join(dir, "sparse"), filepath.Join(dir, "usr")} {
		out, err := exec.Command("du", "-xsB1", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		want, _ := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
		if got, err := Tree(t.Context(), path); err != nil || got != want {
			t.Errorf("%s: %d, %v; du says %d", path, got, err, want)
		}
	}
	if got, err := Tree(t.Context(), filepath.Join(dir, "no/such")); got != 0 || err != nil {
		t.Errorf("what is not there takes %d bytes, %v", got, err)
	}
}
