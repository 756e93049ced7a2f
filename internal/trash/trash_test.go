package trash

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What a person would lose: the disk fills up with what was removed.
func TestEverythingThrownIsDeleted(t *testing.T) {
	dir := t.TempDir()
	var b Bin
	for i := range full + 2*plenty {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(filepath.Join(path, "a", "b"), 0o755); err != nil {
			t.Fatal(err)
		}
		b.Throw(path)
	}
	b.Wait()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Fatalf("%d of the paths are left: %v", len(left), err)
	}
	// And once more after it went to sleep.
	b.Throw(filepath.Join(dir, "gone already"))
	if err := os.Mkdir(filepath.Join(dir, "again"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.Throw(filepath.Join(dir, "again"))
	b.Wait()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Fatalf("%v is left", left)
	}
}

// A burst is bounded: the one who makes more garbage than can be deleted waits.
func TestAFullBinDeletesAtOnce(t *testing.T) {
	dir := t.TempDir()
	b := Bin{working: true} // nobody empties it
	b.paths = make([]string, full)
	path := filepath.Join(dir, "one too many")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	b.Throw(path)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatalf("it was not deleted: %v", err)
	}
}
