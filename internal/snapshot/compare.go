package snapshot

import (
	"context"
	"os"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
)

// Aspect is a way in which a path differs.
type Aspect uint8

// The aspects of a difference.
const (
	Content Aspect = 1 << iota // bytes, the target of a link, the number of a device
	Mode                       // permission bits
	Owner
	Type
	Xattrs
)

// Node is what is at a path.
type Node struct {
	Mode uint32 // type and permissions, as st_mode of stat(2)
	Size int64  // of a regular file, in bytes
	// Layer is the index, in the list of layers compared, of the one it is in.
	Layer int
}

// Difference is one path that is not the same in two stacks of layers. Where
// one has nothing there its node is nil.
type Difference struct {
	Path     string // absolute
	Old, New *Node
	What     Aspect // of a path that both have
}

// compareStacks implements Snapshotter.Compare by what view mounts. Below the
// layers that both have nothing is looked at but what the layers above them
// touch, and files that come from the same layer are not read.
func (s *store) compareStacks(ctx context.Context, from, to []digest.Digest,
	view func(context.Context, []digest.Digest) ([]mount.Mount, error)) ([]Difference, error) {
	shared := 0
	for shared < len(from) && shared < len(to) && from[shared] == to[shared] {
		shared++
	}
	c := &stackComparer{sameness: sameness{ctx: ctx}, old: stack{layers: from}, now: stack{layers: to}}
	defer c.close()
	if err := c.old.open(ctx, s, view); err != nil {
		return nil, err
	}
	if err := c.now.open(ctx, s, view); err != nil {
		return nil, err
	}
	if err := s.compareRoots(c); err != nil {
		return nil, err
	}
	touched := &touch{}
	for _, side := range []*stack{&c.old, &c.now} {
		for _, tree := range side.trees[shared:] {
			if err := s.touched(ctx, int(tree.Fd()), touched); err != nil {
				return nil, err
			}
		}
	}
	err := c.dir("/", int(c.old.root.Fd()), int(c.now.root.Fd()), touched, touched.deep)
	return c.found, err
}

func (s *store) compareRoots(c *stackComparer) error {
	old, err := s.metas(c.old.layers)
	if err != nil {
		return err
	}
	now, err := s.metas(c.now.layers)
	if err != nil {
		return err
	}
	c.root(old, now)
	return nil
}

// stack is one side of a comparison.
type stack struct {
	layers []digest.Digest
	trees  []*os.File // of the layers, as they are on disk
	root   *os.File   // of all of them together
}

func (st *stack) open(ctx context.Context, s *store, view func(context.Context, []digest.Digest) ([]mount.Mount, error)) error {
	mounts, err := view(ctx, st.layers)
	if err != nil {
		return err
	}
	if st.root, err = mount.Detached(mounts); err != nil {
		return err
	}
	for _, d := range st.layers {
		tree, err := os.Open(s.path("layers", d.Encoded(), "fs"))
		if err != nil {
			return err
		}
		st.trees = append(st.trees, tree)
	}
	return nil
}

func (st *stack) close() {
	for _, f := range append(st.trees, st.root) {
		if f != nil {
			f.Close()
		}
	}
}

// source is the index of the layer a path that can be seen is in: the topmost
// that has it. -1 is none, as of a directory no layer mentions.
func (st *stack) source(full string) int {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for i, tree := range slices.Backward(st.trees) {
		fd, err := unix.Openat2(int(tree.Fd()), full[1:], &how)
		if err == nil {
			unix.Close(fd)
			return i
		}
	}
	return -1
}

// touch is the paths that layers say something about.
type touch struct {
	in map[string]*touch
	// deep says that what is below in other layers may be hidden, or not.
	deep bool
}

func (t *touch) at(name string) *touch {
	if t.in == nil {
		t.in = map[string]*touch{}
	}
	if t.in[name] == nil {
		t.in[name] = &touch{}
	}
	return t.in[name]
}

// touched adds the paths of a layer.
func (s *store) touched(ctx context.Context, dirfd int, t *touch) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	list, err := names(dirfd)
	if err != nil {
		return err
	}
	t.deep = t.deep || isOpaque(dirfd)
	for _, name := range list {
		gone, opaque := s.whiteoutName(name)
		if opaque {
			t.deep = true
			continue
		}
		if gone != "" {
			t.at(gone).deep = true
			continue
		}
		st, err := lstatat(dirfd, name)
		if err != nil {
			return err
		}
		child := t.at(name)
		if !isDir(&st) {
			child.deep = true // hides a directory that may be below it
			continue
		}
		if err := below(dirfd, name, func(fd int) error { return s.touched(ctx, fd, child) }); err != nil {
			return err
		}
	}
	return nil
}

// stackComparer is one run of compareStacks.
type stackComparer struct {
	sameness
	old, now stack
	found    []Difference
}

func (c *stackComparer) close() {
	c.old.close()
	c.now.close()
}

// dir compares two directories, either of which may be -1: all that is in them
// when deep, or what was touched.
func (c *stackComparer) dir(full string, old, now int, t *touch, deep bool) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	list, err := c.names(old, now, t, deep)
	if err != nil {
		return err
	}
	for _, name := range list {
		var below *touch
		if t != nil {
			below = t.in[name]
		}
		if err := c.entry(path.Join(full, name), name, old, now, below, deep || below != nil && below.deep); err != nil {
			return err
		}
	}
	return nil
}

func (c *stackComparer) names(old, now int, t *touch, deep bool) (list []string, err error) {
	if deep {
		for _, fd := range []int{old, now} {
			if fd < 0 {
				continue
			}
			more, err := names(fd)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
	} else if t != nil {
		for name := range t.in {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// look describes an entry; nil when there is none.
func look(dirfd int, name string) (*unix.Stat_t, error) {
	if dirfd < 0 {
		return nil, nil
	}
	st, err := lstatat(dirfd, name)
	if err == unix.ENOENT {
		return nil, nil
	}
	return &st, err
}

func (c *stackComparer) entry(full, name string, old, now int, t *touch, deep bool) error {
	a, err := look(old, name)
	if err != nil {
		return err
	}
	b, err := look(now, name)
	if err != nil {
		return err
	}
	var what Aspect
	switch {
	case a == nil && b == nil:
		return nil
	case a != nil && b != nil:
		if what, err = c.aspects(full, name, old, now, a, b); err != nil {
			return err
		}
	}
	if a == nil || b == nil || what != 0 {
		c.found = append(c.found, Difference{Path: full, Old: c.old.node(full, a), New: c.now.node(full, b), What: what})
	}
	return c.inside(full, name, old, now, a, b, t, deep || what&Type != 0)
}

// inside goes on with what is in a directory of either side.
func (c *stackComparer) inside(full, name string, old, now int, a, b *unix.Stat_t, t *touch, deep bool) error {
	oldDir, nowDir := a != nil && isDir(a), b != nil && isDir(b)
	if !oldDir && !nowDir {
		return nil
	}
	fds := [2]int{-1, -1}
	for i, side := range []struct {
		is bool
		fd int
	}{{oldDir, old}, {nowDir, now}} {
		if !side.is {
			deep = true
			continue
		}
		fd, err := openDir(side.fd, name)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	return c.dir(full, fds[0], fds[1], t, deep)
}

func (st *stack) node(full string, stat *unix.Stat_t) *Node {
	if stat == nil {
		return nil
	}
	n := &Node{Mode: stat.Mode, Layer: st.source(full)}
	if stat.Mode&unix.S_IFMT == unix.S_IFREG {
		n.Size = stat.Size
	}
	return n
}

// Compare implements Snapshotter.
func (o *overlay) Compare(ctx context.Context, from, to []digest.Digest) ([]Difference, error) {
	return o.compareStacks(ctx, from, to, o.View)
}

// Compare implements Snapshotter.
func (v *vfs) Compare(ctx context.Context, from, to []digest.Digest) ([]Difference, error) {
	return v.compareStacks(ctx, from, to, v.View)
}
