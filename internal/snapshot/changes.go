package snapshot

import (
	"context"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/mount"
)

// Changes implements Snapshotter. Only the upper directory is walked; the
// merged view of the layers tells what each entry of it replaced.
func (o *overlay) Changes(ctx context.Context, id string) ([]Change, error) {
	s, err := o.find(id)
	if err != nil {
		return nil, err
	}
	upper, err := os.Open(s.upper())
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	base, err := mount.Detached(o.view(s.lower))
	if err != nil {
		return nil, err
	}
	defer base.Close()
	root, err := o.rootBelow(&s)
	if err != nil {
		return nil, err
	}
	c := comparer{sameness: sameness{ctx: ctx}}
	return c.compare(upper, base, root)
}

// comparer is one comparison of a snapshot with what is below it.
type comparer struct {
	sameness
	// whole says that the upper tree is complete. Otherwise it is the upper
	// directory of an overlay mount.
	whole bool
	since unix.Timespec // before which nothing in the upper tree was written to

	changes []Change
	changed map[string]bool    // the paths of changes
	linked  map[inode][]string // the names of files that have several
}

// compare lists what makes upper differ from lower, whose root directory is
// root, sorted.
func (c *comparer) compare(upper, lower *os.File, root rootAttr) ([]Change, error) {
	c.changed, c.linked = map[string]bool{}, map[inode][]string{}
	now, err := rootAttrOf(upper)
	if err != nil {
		return nil, err
	}
	if !now.equal(root) {
		c.add(Modified, "/")
	}
	if err := c.dir("/", int(upper.Fd()), int(lower.Fd()), c.whole); err != nil {
		return nil, err
	}
	c.completeLinks()
	slices.SortFunc(c.changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return c.changes, nil
}

func (c *comparer) add(kind Kind, path string) {
	c.changes = append(c.changes, Change{Kind: kind, Path: path})
	c.changed[path] = true
}

// entries notes that what is in a directory changed, as the changes from index
// first on say.
func (c *comparer) entries(path string, first int) {
	seen := slices.ContainsFunc(c.changes[first:], func(c Change) bool { return !c.LayerOnly })
	c.changes = append(c.changes, Change{Kind: Modified, Path: path, Entries: true, LayerOnly: !seen})
	c.changed[path] = true
}

// completeLinks adds the unchanged names of a file that has a changed one: an
// archive can say that two names are of one file only when it has both.
func (c *comparer) completeLinks() {
	for _, names := range c.linked {
		if !slices.ContainsFunc(names, func(name string) bool { return c.changed[name] }) {
			continue
		}
		for _, name := range names {
			if c.changed[name] {
				continue
			}
			first := len(c.changes)
			c.changes = append(c.changes, Change{Kind: Modified, Path: name, LayerOnly: true})
			c.changed[name] = true
			for dir := path.Dir(name); dir != "/" && !c.changed[dir]; dir = path.Dir(dir) {
				c.entries(dir, first)
			}
		}
	}
}

// dir compares one directory; lower is -1 when there is none below. With hides,
// what lower has is not seen through upper: overlayfs marks only the topmost
// directory that does so.
func (c *comparer) dir(full string, upper, lower int, hides bool) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	list, err := names(upper)
	if layer.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	hides = hides || full != "/" && isOpaque(upper)
	for _, name := range list {
		if err := c.entry(path.Join(full, name), name, upper, lower, hides); err != nil {
			return err
		}
	}
	if lower < 0 || !hides {
		return nil
	}
	hidden, err := names(lower)
	if err != nil {
		return err
	}
	for _, name := range hidden {
		if _, found := slices.BinarySearch(list, name); !found {
			c.add(Deleted, path.Join(full, name))
		}
	}
	return nil
}

func (c *comparer) entry(full, name string, upper, lower int, hides bool) error {
	st, err := lstatat(upper, name)
	if layer.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var old unix.Stat_t
	below := false
	if lower >= 0 {
		switch old, err = lstatat(lower, name); err {
		case nil:
			below = true
		case unix.ENOENT:
		default:
			return err
		}
	}
	switch {
	case !c.whole && isWhiteout(&st):
		if below {
			c.add(Deleted, full)
		}
		return nil
	case !below:
		c.add(Added, full)
		lower = -1
	default:
		differs, err := c.differ(upper, lower, name, &st, &old)
		if layer.IsGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if differs {
			c.add(Modified, full)
			below = false // noted; a change inside need not be
		}
		if !isDir(&old) {
			lower = -1
		}
	}
	if !isDir(&st) {
		if st.Nlink > 1 {
			c.linked[inodeOf(&st)] = append(c.linked[inodeOf(&st)], full)
		}
		return nil
	}
	before := len(c.changes)
	if err := c.subdir(full, name, upper, lower, hides); err != nil {
		return err
	}
	if below && (len(c.changes) > before || st.Mtim != old.Mtim) {
		c.entries(full, before)
	}
	return nil
}

func (c *comparer) subdir(full, name string, upper, lower int, hides bool) error {
	fd, err := openDir(upper, name)
	if layer.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lowerFD := -1
	if lower >= 0 {
		if lowerFD, err = openDir(lower, name); err != nil {
			return err
		}
		defer unix.Close(lowerFD)
	}
	return c.dir(full, fd, lowerFD, hides)
}

func isOpaque(dirfd int) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(dirfd, "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// differ tells whether an entry is another one than the one below it. Size and
// times of a directory only say that entries came or went. Where nothing else
// tells, a file that was written to since it came is read: its time may have been
// set back, and overlayfs takes for written to what was opened to be.
func (c *comparer) differ(upper, lower int, name string, a, b *unix.Stat_t) (bool, error) {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return true, nil
	}
	if !isDir(a) && (a.Size != b.Size || a.Mtim != b.Mtim) {
		return true, nil
	}
	old, err := xattrs(lower, name)
	if err != nil {
		return false, err
	}
	now, err := xattrs(upper, name)
	if err != nil {
		return false, err
	}
	if !maps.Equal(old, now) {
		return true, nil
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG || a.Size == 0 || a.Ctim.Nano() < c.since.Nano() {
		return false, nil
	}
	same, err := c.sameContent(lower, upper, name)
	return !same, err
}

// xattrs reads the extended attributes of an entry.
func xattrs(dirfd int, name string) (map[string]string, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return layer.Xattrs(fd)
}
