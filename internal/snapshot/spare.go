package snapshot

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A spare is a snapshot that nobody has asked for yet: upper and work directory,
// the layers of the last one, and the root directory that most images have. Making
// the directories is most of what Prepare takes; giving them a name is not.

// makeSpare makes a spare at path.
func (o *overlay) makeSpare(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := plainRoot().make(filepath.Join(path, "fs")); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(path, "work"), 0o700); err != nil {
		return err
	}
	return os.Symlink(*o.last.Load(), filepath.Join(path, "lower"))
}

// fromSpare makes the snapshot final of a spare, so that nobody could tell it from
// one that was made anew. It does not when there is none or the disk is too full even
// for that.
func (o *overlay) fromSpare(final string, metas []layerMeta, opts PrepareOptions) bool {
	lower := o.lowerOf(metas, opts)
	o.last.Store(&lower)
	spare := o.spares.Take()
	if spare == "" {
		return false
	}
	root, _ := rootOf(metas)
	err := adapt(spare, lower, root)
	if err == nil {
		// Over a snapshot of that name, which is never empty, it fails.
		err = unix.Rename(spare, final)
	}
	if err != nil {
		_ = os.RemoveAll(spare)
	}
	return err == nil
}

// adapt makes of a spare what is wanted.
func adapt(spare, lower string, root rootAttr) error {
	link := filepath.Join(spare, "lower")
	if now, err := os.Readlink(link); err != nil || now != lower {
		if err := os.Remove(link); err != nil {
			return err
		}
		if err := os.Symlink(lower, link); err != nil {
			return err
		}
	}
	upper := filepath.Join(spare, "fs")
	if !root.equal(plainRoot()) {
		if err := root.apply(upper); err != nil {
			return err
		}
	}
	// A container's root directory is as old as the container.
	return unix.UtimesNano(upper, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}})
}

// Close implements Snapshotter.
func (o *overlay) Close() error {
	o.spares.Close()
	return nil
}
