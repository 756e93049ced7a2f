package ahead

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func mkdir(path string) error { return os.Mkdir(path, 0o700) }

// await waits until there are n directories, with what is over each of them.
func await(t *testing.T, pattern string, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		list, _ := filepath.Glob(pattern)
		if len(list) == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are %d, not %d", len(list), n)
		}
	}
}

// No two containers get the same directory, and none is left when it ends.
func TestDirs(t *testing.T) {
	t.Run("each for itself", func(t *testing.T) { testDirs(t, 1) })
	t.Run("in litters", func(t *testing.T) { testDirs(t, 8) })
}

func testDirs(t *testing.T, litter int) {
	dir := t.TempDir()
	parent := filepath.Join(dir, "ahead")
	all := filepath.Join(parent, "*", "*")
	if litter == 1 {
		all = filepath.Join(parent, "*")
	}
	if err := os.MkdirAll(filepath.Join(parent, "of one that was killed"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := OpenDirs(parent, litter, mkdir)
	if _, err := os.Stat(parent); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("of one that was killed something is left: %v", err)
	}
	if path := d.Take(); path != "" {
		t.Fatalf("there is %s before anything was asked for", path)
	}
	await(t, all, keptDirs)
	taken := map[string]bool{}
	for range 12 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				path := d.Take()
				if path == "" {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if taken[path] {
					t.Errorf("%s was taken twice", path)
				}
				taken[path] = true
				if err := os.Rename(path, filepath.Join(dir, filepath.Base(path))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		await(t, all, keptDirs)
	}
	if len(taken) < 4*keptDirs {
		t.Errorf("only %d were taken", len(taken))
	}
	// Those in litters can be in two places, and one more may be empty.
	if places, err := os.ReadDir(parent); err != nil || litter > 1 && len(places) > 3 {
		t.Errorf("there are %d places, %v", len(places), err)
	}
	d.Close()
	if _, err := os.Stat(parent); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
	if path := d.Take(); path != "" {
		t.Errorf("there is %s after the end", path)
	}
}

// What cannot be made whole is not there, and is when it can be again.
func TestDirsThatCannotBeMade(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "ahead")
	full, asked := true, make(chan bool)
	d := OpenDirs(parent, 2, func(path string) error {
		if err := mkdir(path); err != nil {
			return err
		}
		if !full {
			return nil
		}
		asked <- true
		return errors.New("the disk is full")
	})
	d.Take()
	<-asked
	d.busy.Lock() // it has given up
	full = false
	d.busy.Unlock()
	await(t, filepath.Join(parent, "*", "*"), 0)
	if path := d.Take(); path != "" {
		t.Errorf("%s is half made", path)
	}
	await(t, filepath.Join(parent, "*", "*"), keptDirs)
	d.Close()
}
