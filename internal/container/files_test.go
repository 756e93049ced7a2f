package container

import (
	"os"
	"path/filepath"
	"testing"
)

// A container that is started again finds what was written last, and nothing of what
// was there before.
func TestOverwrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	for _, text := range []string{"long long text", "short", "", "again"} {
		if err := overwrite(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("the file says %q, not %q: %v", got, text, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if rendered(path + " not there") {
		t.Error("what is not there was rendered")
	}
}
