package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/du"
)

// Disk is what the layers of a driver take on disk, in bytes of blocks. With
// what each snapshot takes it adds up to what du(1) finds in the directory, but for
// snapshots made ahead: a few empty directories that are no image's.
type Disk struct {
	Layers map[digest.Digest]int64
	// Other is what belongs to no layer and no snapshot: layers put together,
	// what is being unpacked or removed, the directories around them.
	Other int64
}

// Disk implements Snapshotter. A layer never changes, so that it is walked once
// in the life of the store.
func (s *store) Disk(ctx context.Context) (Disk, error) {
	total, err := s.around(ctx)
	if err != nil {
		return Disk{}, err
	}
	infos, err := s.Layers(ctx)
	if err != nil {
		return Disk{}, err
	}
	d := Disk{Layers: make(map[digest.Digest]int64, len(infos)), Other: total}
	for _, l := range infos {
		if d.Layers[l.DiffID], err = s.layerDisk(ctx, l.DiffID); err != nil {
			return Disk{}, err
		}
	}
	return d, nil
}

func (s *store) layerDisk(ctx context.Context, diffID digest.Digest) (int64, error) {
	s.mu.Lock()
	size, known := s.disk[diffID]
	s.mu.Unlock()
	if known {
		return size, nil
	}
	size, err := du.Tree(ctx, s.path("layers", diffID.Encoded()))
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.layers[diffID]; there {
		s.disk[diffID] = size
	}
	return size, nil
}

// around is everything in the directory but ahead/ and what is in layers/ and
// snapshots/.
func (s *store) around(ctx context.Context) (total int64, err error) {
	entries, err := filepath.Glob(s.path("*"))
	if err != nil {
		return 0, err
	}
	for _, path := range append(entries, s.dir) {
		measure := func(path string) (int64, error) { return du.Tree(ctx, path) }
		switch path {
		case s.dir, s.path("layers"), s.path("snapshots"):
			measure = du.Blocks
		case s.path("ahead"):
			continue
		}
		n, err := measure(path)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// SnapshotDisk implements Snapshotter.
func (s *store) SnapshotDisk(ctx context.Context, id string) (int64, error) {
	path, err := s.snapshotPath(id)
	if err != nil {
		return 0, err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, noSnapshot(id)
	}
	return du.Tree(ctx, path)
}
