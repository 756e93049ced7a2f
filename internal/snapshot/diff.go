package snapshot

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/gantry-containers/gantry/internal/layer"
)

// Diff implements Snapshotter.
func (o *overlay) Diff(ctx context.Context, id string, w io.Writer) error {
	changes, err := o.Changes(ctx, id)
	if err != nil {
		return err
	}
	dir, err := o.snapshotPath(id)
	if err != nil {
		return err
	}
	return writeDiff(ctx, filepath.Join(dir, "fs"), changes, w)
}

// writeDiff packs what changed in the tree at dir.
func writeDiff(ctx context.Context, dir string, changes []Change, w io.Writer) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries := make([]layer.Entry, len(changes))
	for i, c := range changes {
		entries[i] = layer.Entry{Path: c.Path, Deleted: c.Kind == Deleted}
	}
	return layer.PackEntries(ctx, root, w, entries)
}
