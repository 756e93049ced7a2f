package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/snapshot/snapshottest"
)

func TestOverlayFS(t *testing.T) {
	snapshottest.Run(t, func(dir string) (snapshot.Snapshotter, error) { return snapshot.New(snapshot.OverlayFS, dir) })
}

func TestVFS(t *testing.T) {
	snapshottest.Run(t, func(dir string) (snapshot.Snapshotter, error) { return snapshot.New(snapshot.VFS, dir) })
}

func TestNew(t *testing.T) {
	if _, err := snapshot.New("btrfs", t.TempDir()); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("an unknown driver: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("overlayfs needs root")
	}
	// A file system that cannot be below an overlay: another overlay.
	lower, upper, work, dir := t.TempDir(), t.TempDir(), "", t.TempDir()
	work = filepath.Join(upper, "work")
	upper = filepath.Join(upper, "fs")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if _, err := snapshot.New(snapshot.OverlayFS, dir); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("overlayfs upon overlayfs: %v", err)
	}
	s, err := snapshot.New("", dir)
	if err != nil || s.Name() != snapshot.VFS {
		t.Errorf("no driver was chosen: %v", err)
	}
	if s, err := snapshot.New("", t.TempDir()); err != nil || s.Name() != snapshot.OverlayFS {
		t.Errorf("overlayfs was not chosen: %v", err)
	}
}

// BenchmarkPrepare makes and removes a container's root over eight layers.
func BenchmarkPrepare(b *testing.B) {
	s, err := snapshot.New(snapshot.OverlayFS, b.TempDir())
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { s.Close() })
	var layers []digest.Digest
	for i := range 8 {
		layers = append(layers, snapshottest.Unpack(b, s, snapshottest.File{Name: fmt.Sprint(i), Content: "x"}))
	}
	ctx := b.Context()
	for b.Loop() {
		if err := s.Prepare(ctx, "c", layers, snapshot.PrepareOptions{Ephemeral: true}); err != nil {
			b.Fatal(err)
		}
		mounts, err := s.Mounts("c")
		if err != nil {
			b.Fatal(err)
		}
		f, err := mount.Detached(mounts)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
		if err := s.Remove(ctx, "c"); err != nil {
			b.Fatal(err)
		}
	}
}

// A layer that cannot get its short name, as on a disk without another inode, is
// not there afterwards, and can be unpacked when there is room. One that was half
// removed by a process that died is gone for the next.
func TestLayerThatIsNotPublished(t *testing.T) {
	dir := t.TempDir()
	s, err := snapshot.New(snapshot.OverlayFS, dir)
	if err != nil {
		t.Skip(err)
	}
	short, layers := filepath.Join(dir, "overlayfs", "l"), filepath.Join(dir, "overlayfs", "layers")
	if _, err := os.Stat(short); err != nil {
		t.Fatal(err)
	}
	there := func() int {
		list, err := os.ReadDir(layers)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if err := os.Rename(short, short+".away"); err != nil {
		t.Fatal(err)
	}
	diffID, data := snapshottest.Layer(t, snapshottest.File{Name: "file", Content: "text"})
	if _, err := s.Unpack(t.Context(), diffID, bytes.NewReader(data)); err == nil || s.HasLayer(diffID) || there() != 0 {
		t.Errorf("%v, and %d layers are there", err, there())
	}
	if err := os.Rename(short+".away", short); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unpack(t.Context(), diffID, bytes.NewReader(data)); err != nil || !s.HasLayer(diffID) || there() != 1 {
		t.Errorf("%v, and %d layers are there", err, there())
	}
	if err := os.Remove(filepath.Join(layers, diffID.Encoded(), "meta")); err != nil {
		t.Fatal(err)
	}
	if s, err = snapshot.New(snapshot.OverlayFS, dir); err != nil || s.HasLayer(diffID) || there() != 0 {
		t.Errorf("%v, and %d layers are there", err, there())
	}
}
