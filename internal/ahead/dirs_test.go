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

// await waits until there are n directories in parent.
func await(t *testing.T, parent string, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		list, _ := os.ReadDir(parent)
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
	dir := t.TempDir()
	parent := filepath.Join(dir, "ahead")
	if err := os.MkdirAll(filepath.Join(parent, "of one that was killed"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := OpenDirs(parent, mkdir)
	if _, err := os.Stat(parent); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("of one that was killed something is left: %v", err)
	}
	if path := d.Take(); path != "" {
		t.Fatalf("there is %s before anything was asked for", path)
	}
	await(t, parent, keptDirs)
	d.busy.Lock() // the last one is in the list, too
	d.busy.Unlock()
	taken := map[string]bool{}
	for range 5 {
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
		await(t, parent, keptDirs)
		d.busy.Lock() // the last one is in the list, too
		d.busy.Unlock()
	}
	if len(taken) < 4*keptDirs {
		t.Errorf("only %d were taken", len(taken))
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
	d := OpenDirs(parent, func(path string) error {
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
	await(t, parent, 0)
	if path := d.Take(); path != "" {
		t.Errorf("%s is half made", path)
	}
	await(t, parent, keptDirs)
	d.Close()
}
