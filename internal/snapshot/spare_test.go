package snapshot_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/snapshot/snapshottest"
)

// spares waits until there are n made ahead, and returns their inodes.
func spares(t *testing.T, dir string, n int) map[uint64]bool {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		found, _ := filepath.Glob(filepath.Join(dir, "overlayfs", "ahead", "*", "*", "lower"))
		if len(found) == n {
			inodes := map[uint64]bool{}
			for _, path := range found {
				inodes[stat(t, filepath.Dir(path)).Ino] = true
			}
			return inodes
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d snapshots are made ahead, not %d", len(found), n)
		}
	}
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	return st
}

func openOverlay(t *testing.T, dir string) snapshot.Snapshotter {
	t.Helper()
	s, err := snapshot.New(snapshot.OverlayFS, dir)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// After one container there are snapshots for the next ones, of which nobody can
// see that they were there before; a process that is killed leaves none for good.
func TestSpares(t *testing.T) {
	dir := t.TempDir()
	s := openOverlay(t, dir)
	var images []digest.Digest
	for _, content := range []string{"1", "2"} {
		images = append(images, snapshottest.Unpack(t, s, snapshottest.File{Name: "a", Content: content}))
	}
	prepare := func(id string, image digest.Digest) string {
		t.Helper()
		if err := s.Prepare(t.Context(), id, []digest.Digest{image}, snapshot.PrepareOptions{}); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, "overlayfs", "snapshots", id)
	}
	other := func() int64 {
		t.Helper()
		disk, err := s.Disk(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return disk.Other
	}
	before := other()
	prepare("first", images[0])
	for i, image := range images {
		made := spares(t, dir, 4)
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		path := prepare([]string{"one", "two"}[i], image)
		if !made[stat(t, path).Ino] {
			t.Errorf("%s was made though there were spares", path)
		}
		if got, want := stat(t, filepath.Join(path, "fs")).Mtim, now; got.Nano() < want.Nano() {
			t.Errorf("the root directory of %s is older than the container", path)
		}
	}
	for _, info := range []string{"first", "one", "two"} {
		if list, err := s.Changes(t.Context(), info); err != nil || len(list) != 0 {
			t.Errorf("%s has changes: %v, %v", info, list, err)
		}
	}
	if ids, err := s.Snapshots(t.Context()); err != nil || len(ids) != 3 {
		t.Errorf("the snapshots are %q, %v", ids, err)
	}
	spares(t, dir, 4)
	if now := other(); now != before {
		t.Errorf("what was made ahead counts as %d bytes of images", now-before)
	}
	// A name that is taken costs a spare, and leaves nothing of it.
	if err := s.Prepare(t.Context(), "one", images[:1], snapshot.PrepareOptions{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a name that is taken: %v", err)
	}
	spares(t, dir, 4)

	// The next process. The first is not closed: it was killed.
	next := openOverlay(t, dir)
	spares(t, dir, 0)
	s = next
	prepare("of the next", images[1])
	spares(t, dir, 4)
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "overlayfs", "ahead")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left of what was made ahead: %v", err)
	}
	prepare("after all", images[1]) // still possible
}

// A disk without another inode: what was made ahead is used up, then containers are
// refused, and nothing is left of those that were.
func TestSparesOfAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,nr_inodes=100"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := openOverlay(t, dir)
	defer s.Close()
	image := snapshottest.Unpack(t, s, snapshottest.File{Name: "a", Content: "1"})
	prepare := func(id string) error {
		return s.Prepare(t.Context(), id, []digest.Digest{image}, snapshot.PrepareOptions{})
	}
	if err := prepare("first"); err != nil {
		t.Fatal(err)
	}
	spares(t, dir, 4)
	var files []string
	for {
		f, err := os.CreateTemp(dir, "full-")
		if err != nil {
			break
		}
		f.Close()
		files = append(files, f.Name())
	}
	for _, id := range []string{"1", "2", "3", "4"} {
		if err := prepare(id); err != nil {
			t.Errorf("with a spare: %v", err)
		}
	}
	if err := prepare("5"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("without a spare: %v", err)
	}
	if ids, err := s.Snapshots(t.Context()); err != nil || len(ids) != 5 {
		t.Errorf("the snapshots are %q, %v", ids, err)
	}
	for _, name := range files {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := prepare("5"); err != nil {
		t.Error(err)
	}
	spares(t, dir, 4)
}
