package snapshot

import (
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A spare is a snapshot that nobody has asked for yet: upper and work directory,
// the layers of the last one, and the root directory that most images have. Making
// the directories is most of what Prepare takes; giving them a name is not.
//
// It also has what the caller made in the last snapshot when it had been prepared.
// Through overlayfs that takes longer, not least because the directory it is in has to
// be copied first.

// kind is what snapshots have in common for which the same spares are made.
type kind struct {
	lower   string // what "lower" says
	entries []Entry
}

func (k *kind) equal(other *kind) bool {
	return k.lower == other.lower && slices.Equal(k.entries, other.entries)
}

// makeSpare makes a spare at path.
func (o *overlay) makeSpare(path string) error {
	k := o.last.Load()
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	upper := filepath.Join(path, "fs")
	if err := plainRoot().make(upper); err != nil {
		return err
	}
	if err := o.furnish(upper, k); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(path, "work"), 0o700); err != nil {
		return err
	}
	if err := os.Symlink(k.lower, filepath.Join(path, "lower")); err != nil {
		return err
	}
	o.kinds.Store(path, k)
	return nil
}

// furnish makes the entries in upper that can be made there.
func (o *overlay) furnish(upper string, k *kind) error {
	below := map[string][]int{} // the directories of the layers
	defer func() {
		for _, fds := range below {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}()
	for _, e := range k.entries {
		fds, known := below[e.Dir]
		if !known {
			fds = o.openBelow(k.lower, e.Dir)
			below[e.Dir] = fds
			if e.Dir != "." && len(fds) > 0 && canCopy(fds[0]) {
				if err := copyDir(fds[0], filepath.Join(upper, e.Dir)); err != nil {
					return err
				}
			}
		}
		if e.Dir != "." && (len(fds) == 0 || !canCopy(fds[0])) || isBelow(fds, e.Name) {
			continue
		}
		path := filepath.Join(upper, e.Dir, e.Name)
		var err error
		if e.Target != "" {
			err = os.Symlink(e.Target, path)
		} else {
			err = unix.Mknod(path, unix.S_IFREG|0o755, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openBelow opens a directory of the layers, topmost first, as far down as it can be
// seen.
func (o *overlay) openBelow(lower, dir string) (fds []int) {
	for link := range strings.SplitSeq(strings.TrimPrefix(lower, ephemeral), ":") {
		fd, err := unix.Open(o.path("l", link)+"/"+dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			break // what is no directory hides those below
		}
		fds = append(fds, fd)
		if isOpaque(fd) {
			break
		}
	}
	return fds
}

// isBelow says whether something of that name can be seen in the directories, or may
// be.
func isBelow(fds []int, name string) bool {
	for _, fd := range fds {
		st, err := lstatat(fd, name)
		if err != unix.ENOENT {
			return err != nil || !isWhiteout(&st)
		}
	}
	return false
}

// canCopy says whether copyDir knows all there is to copy.
func canCopy(fd int) bool {
	n, err := unix.Flistxattr(fd, nil)
	return err == unix.ENOTSUP || err == nil && n == 0
}

// copyDir makes what overlayfs would make of a directory before it is written to.
func copyDir(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return rootAttr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}.make(path)
}

// fromSpare makes the snapshot final of a spare, so that nobody could tell it from
// one that was made anew. It does not when there is none or the disk is too full even
// for that.
func (o *overlay) fromSpare(final string, metas []layerMeta, opts PrepareOptions) bool {
	want := &kind{lower: o.lowerOf(metas, opts), entries: opts.Entries}
	o.last.Store(want)
	spare := o.spares.Take()
	if spare == "" {
		return false
	}
	made, _ := o.kinds.LoadAndDelete(spare)
	root, _ := rootOf(metas)
	err := o.adapt(spare, made.(*kind), want, root)
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
func (o *overlay) adapt(spare string, made, want *kind, root rootAttr) error {
	upper := filepath.Join(spare, "fs")
	// A container's directories are as old as the container.
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if !made.equal(want) {
		if err := o.strip(spare, made); err != nil {
			return err
		}
		if err := relabel(spare, want.lower); err != nil {
			return err
		}
	} else {
		for dir := range dirsOf(made.entries) {
			if err := unix.UtimesNano(filepath.Join(upper, dir), now); err != nil && err != unix.ENOENT {
				return err
			}
		}
	}
	if !root.equal(plainRoot()) {
		if err := root.apply(upper); err != nil {
			return err
		}
	}
	return unix.UtimesNano(upper, now)
}

// strip takes the entries away.
func (o *overlay) strip(spare string, made *kind) error {
	upper := filepath.Join(spare, "fs")
	for _, e := range made.entries {
		if e.Dir == "." {
			if err := unix.Unlink(filepath.Join(upper, e.Name)); err != nil && err != unix.ENOENT {
				return err
			}
		}
	}
	for dir := range dirsOf(made.entries) {
		path, tmp := filepath.Join(upper, dir), o.rubbish()
		switch unix.Rename(path, tmp) {
		case nil:
			o.bin.Throw(tmp)
		case unix.ENOENT:
		default:
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// dirsOf are the directories of entries, but for the root directory.
func dirsOf(entries []Entry) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i, e := range entries {
			seen := slices.ContainsFunc(entries[:i], func(other Entry) bool { return other.Dir == e.Dir })
			if e.Dir != "." && !seen && !yield(e.Dir) {
				return
			}
		}
	}
}

// relabel makes a spare one of other layers.
func relabel(spare, lower string) error {
	link := filepath.Join(spare, "lower")
	if err := os.Remove(link); err != nil {
		return err
	}
	return os.Symlink(lower, link)
}

// Close implements Snapshotter.
func (o *overlay) Close() error {
	o.spares.Close()
	return nil
}
