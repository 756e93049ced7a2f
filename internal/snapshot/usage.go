package snapshot

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/layer"
)

// Usage implements Snapshotter.
func (o *overlay) Usage(ctx context.Context, id string) (size, inodes int64, err error) {
	s, err := o.find(id)
	if err != nil {
		return 0, 0, err
	}
	return usage(ctx, s.upper())
}

// usage adds up what a tree holds: the sizes of all but directories, files with
// several names once, and the number of inodes below its root.
func usage(ctx context.Context, dir string) (size, inodes int64, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	seen := map[inode]struct{}{}
	var walk func(dirfd int) error
	walk = func(dirfd int) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		list, err := names(dirfd)
		if err != nil {
			return err
		}
		for _, name := range list {
			st, err := lstatat(dirfd, name)
			if layer.IsGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			if isDir(&st) {
				inodes++
				if err := below(dirfd, name, walk); err != nil && !layer.IsGone(err) {
					return err
				}
				continue
			}
			if st.Nlink > 1 {
				if _, again := seen[inodeOf(&st)]; again {
					continue
				}
				seen[inodeOf(&st)] = struct{}{}
			}
			inodes++
			size += st.Size
		}
		return nil
	}
	err = walk(int(f.Fd()))
	return size, inodes, err
}

// below calls f with a directory beneath another opened.
func below(dirfd int, name string, f func(fd int) error) error {
	fd, err := openDir(dirfd, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// changedUsage is usage for a tree of which only the changes count.
func changedUsage(dir string, changes []Change) (size, inodes int64, err error) {
	seen := map[inode]struct{}{}
	for _, c := range changes {
		if c.Kind == Deleted {
			continue
		}
		var st unix.Stat_t
		// Nothing to guard here: only sizes are read.
		err := unix.Lstat(filepath.Join(dir, c.Path), &st)
		if layer.IsGone(err) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		if _, again := seen[inodeOf(&st)]; again {
			continue
		}
		seen[inodeOf(&st)] = struct{}{}
		inodes++
		if !isDir(&st) {
			size += st.Size
		}
	}
	return size, inodes, nil
}
