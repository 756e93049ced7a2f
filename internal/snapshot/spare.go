package snapshot

import (
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

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
	plan    func() *plan // of its entries; it looks at the layers once
}

func (o *overlay) newKind(lower string, entries []Entry) *kind {
	return &kind{lower, entries, sync.OnceValue(func() *plan { return o.planFor(lower, entries) })}
}

func (k *kind) equal(other *kind) bool {
	return k == other || k.lower == other.lower && slices.Equal(k.entries, other.entries)
}

// plan is what can be made of the entries of a kind.
type plan struct {
	dirs    []string
	attrs   []rootAttr // of each of them
	entries []Entry
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
	if err := k.furnish(upper); err != nil {
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
func (k *kind) furnish(upper string) error {
	p := k.plan()
	for i, dir := range p.dirs {
		if err := p.attrs[i].make(filepath.Join(upper, dir)); err != nil {
			return err
		}
	}
	for _, e := range p.entries {
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

// planFor looks for what the layers have where entries are to be. It says so for good,
// and a layer that was removed, as it can be while no container has it, may come back:
// then there are none.
func (o *overlay) planFor(lower string, entries []Entry) *plan {
	p := &plan{}
	if !o.whole(lower) {
		return p
	}
	for dir := range dirsOf(entries) {
		fds := o.openBelow(lower, dir)
		possible := dir == "."
		if !possible && len(fds) > 0 {
			if attr, ok := copyOf(fds[0]); ok {
				p.dirs, p.attrs = append(p.dirs, dir), append(p.attrs, attr)
				possible = true
			}
		}
		for _, e := range entries {
			if possible && e.Dir == dir && !isBelow(fds, e.Name) {
				p.entries = append(p.entries, e)
			}
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	if !o.whole(lower) { // it is taken apart after it has lost its name
		return &plan{}
	}
	return p
}

// whole says whether all the layers are there.
func (o *overlay) whole(lower string) bool {
	lower = strings.TrimPrefix(lower, ephemeral)
	if lower == noLayers {
		return true
	}
	for link := range strings.SplitSeq(lower, ":") {
		if _, err := os.Stat(o.path("l", link)); err != nil {
			return false
		}
	}
	return true
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

// copyOf is what overlayfs would make of a directory before it is written to. It is not
// known of one with extended attributes, which are the machine's, too.
func copyOf(fd int) (attr rootAttr, ok bool) {
	if n, err := unix.Flistxattr(fd, nil); err == nil && n > 0 || err != nil && err != unix.ENOTSUP {
		return attr, false
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return rootAttr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}, err == nil
}

// kindOf is the kind of the next spares.
func (o *overlay) kindOf(lower string, entries []Entry) *kind {
	k := o.newKind(lower, entries)
	if last := o.last.Load(); last != nil && last.equal(k) {
		return last
	}
	o.last.Store(k)
	return k
}

// fromSpare makes the snapshot final of a spare, so that nobody could tell it from
// one that was made anew. It does not when there is none or the disk is too full even
// for that.
func (o *overlay) fromSpare(final string, metas []layerMeta, opts PrepareOptions) bool {
	want := o.kindOf(o.lowerOf(metas, opts), opts.Entries)
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
		for _, dir := range made.plan().dirs {
			if err := unix.UtimesNano(filepath.Join(upper, dir), now); err != nil {
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
	upper, p := filepath.Join(spare, "fs"), made.plan()
	for _, e := range p.entries {
		if e.Dir == "." {
			if err := unix.Unlink(filepath.Join(upper, e.Name)); err != nil {
				return err
			}
		}
	}
	for _, dir := range p.dirs {
		path, tmp := filepath.Join(upper, dir), o.rubbish()
		if unix.Rename(path, tmp) == nil {
			o.bin.Throw(tmp)
		} else if err := os.RemoveAll(path); err != nil { // the disk is full
			return err
		}
	}
	return nil
}

// dirsOf are the directories of entries.
func dirsOf(entries []Entry) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i, e := range entries {
			seen := slices.ContainsFunc(entries[:i], func(other Entry) bool { return other.Dir == e.Dir })
			if !seen && !yield(e.Dir) {
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
