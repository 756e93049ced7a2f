package container

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	api "github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/ocispec"
)

// tree is a container's file system for copying, and a path in it.
type tree struct {
	root  *os.File
	path  string
	close func()
}

// open finds the file system of a container as its processes see it: those that
// run, or those that would if it were started now. Until the tree is closed a
// container that does not run cannot be started, which would mount its files a
// second time.
func (m *Manager) open(ctx context.Context, c *Container, name string) (*tree, error) {
	t := &tree{path: path.Join("/", name) + trailing(name)}
	if rec := c.copy(); rec.running() {
		return t, t.enter(&rec)
	}
	c.op.Lock()
	rec := c.copy()
	if rec.running() {
		c.op.Unlock()
		return t, t.enter(&rec)
	}
	whole, err := m.assemble(ctx, &rec)
	if err != nil {
		c.op.Unlock()
		return nil, err
	}
	t.root = whole.Root
	t.close = func() {
		whole.Close()
		c.op.Unlock()
	}
	return t, nil
}

// enter takes the root of a running container.
func (t *tree) enter(rec *Record) (err error) {
	proc, err := rec.process()
	if err != nil {
		return err
	}
	defer proc.Close()
	if t.root, err = under(proc, "root", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return rec.ended()
	}
	t.close = func() { t.root.Close() }
	return nil
}

// bareRoot is the root of a container with, if it does not run, nothing mounted
// in it.
func (m *Manager) bareRoot(rec *Record) (*os.File, error) {
	if !rec.running() {
		return m.detachedRoot(rec.ID)
	}
	t := tree{}
	err := t.enter(rec)
	return t.root, err
}

// assemble mounts what a start would, but for what begins empty (tmpfs, /proc and
// the like): volumes, binds, images and the engine's files of /etc.
func (m *Manager) assemble(ctx context.Context, rec *Record) (*mount.Tree, error) {
	root, err := m.opts.Snapshots.Mounts(rec.ID)
	if err != nil {
		return nil, err
	}
	var binds []mount.Bind
	h := &held{}
	defer func() {
		h.close()
		for _, b := range binds {
			b.Tree.Close()
		}
	}()
	for i := range rec.Mounts {
		mnt := &rec.Mounts[i]
		if mnt.Type == api.TypeTmpfs {
			continue
		}
		out, err := m.specMount(ctx, mnt, h)
		if err != nil {
			return nil, err
		}
		tree, err := mountTree(out)
		if err != nil {
			return nil, fmt.Errorf("cannot mount %s of container %s: %w", mnt.Destination, rec.Name, err)
		}
		binds = append(binds, mount.Bind{Tree: tree, Target: mnt.Destination})
	}
	dir, err := m.filesDir(rec)
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		file := filepath.Join(dir, name)
		if err != nil || !rendered(file) || mountedAt(rec, "/etc/"+name) {
			continue
		}
		tree, err := mount.Detached([]mount.Mount{{Type: "bind", Source: file}})
		if err != nil {
			return nil, err
		}
		binds = append(binds, mount.Bind{Tree: tree, Target: "/etc/" + name})
	}
	sort.SliceStable(binds, func(i, j int) bool {
		return strings.Count(binds[i].Target, "/") < strings.Count(binds[j].Target, "/")
	})
	return mount.Assemble(root, binds, rec.HostConfig.ReadonlyRootfs)
}

func mountedAt(rec *Record, place string) bool {
	for i := range rec.Mounts {
		if rec.Mounts[i].Destination == place {
			return true
		}
	}
	return false
}

// mountTree makes the detached mount of what a start would mount.
func mountTree(m *ocispec.Mount) (*os.File, error) {
	if m.Type == api.TypeImage {
		one := m.Stack[0]
		one.Options = append(append([]string{}, one.Options...), "ro")
		if m.Subpath != "" {
			one.Options = append(one.Options, mount.Subdir+m.Subpath)
		}
		return mount.Detached([]mount.Mount{one})
	}
	// What is read-only is so with all that is mounted below it, unless asked.
	shallow := m.Bind.NonRecursive || m.Bind.ReadOnlyNonRecursive
	options := []string{"rbind"}
	if m.Bind.NonRecursive {
		options[0] = "bind"
	}
	if !m.RW && !shallow {
		options = append(options, "ro")
	}
	tree, err := mount.Detached([]mount.Mount{{Type: "bind", Source: m.Source, Options: options}})
	if err == nil && !m.RW && shallow {
		err = unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		if err != nil {
			tree.Close()
		}
	}
	return tree, err
}

// writable refuses to write where the container itself could not: what the path
// leads to decides, not how it is written.
func (t *tree) writable() error {
	place, err := layer.PlaceIn(t.root, t.path)
	if err != nil {
		return err
	}
	defer place.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(place.Fd()), &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		return err
	}
	var here, root unix.Statx_t
	for fd, st := range map[int]*unix.Statx_t{int(place.Fd()): &here, int(t.root.Fd()): &root} {
		if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, st); err != nil {
			return err
		}
	}
	if here.Mnt_id == root.Mnt_id {
		return errs.Forbidden("container rootfs is marked read-only")
	}
	return errs.Forbidden("container mount %s is marked read-only", path.Clean(t.path))
}
