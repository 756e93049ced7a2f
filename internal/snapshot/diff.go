package snapshot

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/gantry-containers/gantry/internal/layer"
)

// Diff implements Snapshotter.
func (o *overlay) Diff(ctx context.Context, id string, keep func([]Change) []Change, w io.Writer) error {
	changes, err := o.Changes(ctx, id)
	if err != nil {
		return err
	}
	dir, err := o.snapshotPath(id)
	if err != nil {
		return err
	}
	return writeDiff(ctx, filepath.Join(dir, "fs"), id, changes, keep, w)
}

// writeDiff packs what changed in the tree at dir.
func writeDiff(ctx context.Context, dir, id string, changes []Change, keep func([]Change) []Change, w io.Writer) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if keep != nil {
		changes = keep(changes)
	}
	entries := make([]layer.Entry, len(changes))
	for i, c := range changes {
		entries[i] = layer.Entry{Path: c.Path, Deleted: c.Kind == Deleted, Replaces: c.Kind == Modified}
	}
	if err := layer.PackEntries(ctx, root, w, entries); err != nil {
		return err
	}
	// A path that is gone is left out of the archive. When all of them go,
	// because the snapshot is being removed, what was written is no diff.
	if _, err := os.Lstat(dir); err != nil {
		return noSnapshot(id)
	}
	return nil
}
