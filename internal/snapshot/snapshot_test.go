package snapshot_test

import (
	"testing"

	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/snapshot/snapshottest"
)

func TestOverlayFS(t *testing.T) {
	snapshottest.Run(t, func(dir string) (snapshot.Snapshotter, error) { return snapshot.New(snapshot.OverlayFS, dir) })
}

func TestVFS(t *testing.T) {
	snapshottest.Run(t, func(dir string) (snapshot.Snapshotter, error) { return snapshot.New(snapshot.VFS, dir) })
}
