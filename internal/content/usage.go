package content

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/du"
)

// Disk is what the store takes on disk, in bytes of blocks. Its parts add up
// to what du(1) finds.
type Disk struct {
	Blobs map[digest.Digest]int64 // what was committed
	// Unfinished is what is being written, and what an interrupted download
	// left to go on from.
	Unfinished int64
	Other      int64 // the directories around them
}

// Disk measures the store.
func (s *Store) Disk(ctx context.Context) (Disk, error) {
	d := Disk{Blobs: map[digest.Digest]int64{}}
	blobs := filepath.Join(s.dir, "blobs")
	all, err := du.Tree(ctx, blobs)
	if err != nil {
		return Disk{}, err
	}
	d.Other = all
	err = s.Walk(func(info Info) error {
		path, err := s.path(info.Digest)
		if err != nil {
			return err
		}
		size, err := du.Blocks(path)
		if err != nil {
			return nil // removed since it was listed
		}
		d.Blobs[info.Digest] = size
		d.Other -= size
		return ctx.Err()
	})
	if err != nil {
		return Disk{}, err
	}
	for _, dir := range []string{s.ingest(), s.partials()} {
		size, err := du.Tree(ctx, dir)
		if err != nil {
			return Disk{}, err
		}
		empty, err := du.Blocks(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Disk{}, err
		}
		d.Unfinished += size - empty
		d.Other += empty
	}
	return d, nil
}
