package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/mount"
)

// vfs makes snapshots as plain copies. It works on any file system and costs
// what copying costs: little where the file system shares blocks between copies
// (xfs, btrfs), the size of the image elsewhere.
//
//	layers/<hex>/{fs,meta}    the layers, whiteouts as .wh. files
//	views/<hex>/{fs,layers}   layers put together, named by the hash of their list
//	snapshots/<id>/fs         a copy of a view
//	snapshots/<id>/view       which, as the target of a symbolic link
type vfs struct {
	*store
	quota   *quota // nil where the file system has none
	noQuota error  // why

	viewMu sync.Mutex // guards making and removing views; taken before store.mu
}

func newVFS(dir string) (*vfs, error) {
	s, err := openStore(dir, layer.Literal)
	if err != nil {
		return nil, err
	}
	v := &vfs{store: s}
	if err := os.MkdirAll(s.path("views"), 0o700); err != nil {
		return nil, err
	}
	v.quota, v.noQuota = openQuota(s.path("snapshots"))
	return v, nil
}

// Name implements Snapshotter.
func (v *vfs) Name() string { return VFS }

// Unpack implements Snapshotter.
func (v *vfs) Unpack(ctx context.Context, diffID digest.Digest, tar io.Reader) (int64, error) {
	return v.unpack(ctx, diffID, tar, nil)
}

// RemoveLayer implements Snapshotter.
func (v *vfs) RemoveLayer(ctx context.Context, diffID digest.Digest) error {
	v.viewMu.Lock()
	defer v.viewMu.Unlock()
	return v.removeLayer(ctx, diffID, func(layerMeta) error { return v.removeViews(diffID) })
}

// removeViews removes every view that has the layer in it.
func (v *vfs) removeViews(diffID digest.Digest) error {
	entries, err := os.ReadDir(v.path("views"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		list, err := os.ReadFile(v.path("views", e.Name(), "layers"))
		if err != nil {
			return err
		}
		if slices.Contains(strings.Fields(string(list)), diffID.String()) {
			if err := v.discard(v.path("views", e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// ensureView puts layers together unless that was done before, and returns the
// name of the view.
func (v *vfs) ensureView(ctx context.Context, layers []digest.Digest) (string, error) {
	metas, err := v.metas(layers)
	if err != nil {
		return "", err
	}
	var list strings.Builder
	for _, d := range layers {
		fmt.Fprintln(&list, d)
	}
	sum := sha256.Sum256([]byte(list.String()))
	name := hex.EncodeToString(sum[:])
	v.viewMu.Lock()
	defer v.viewMu.Unlock()
	if _, err := os.Lstat(v.path("views", name)); !errors.Is(err, fs.ErrNotExist) {
		return name, err
	}
	tmp, err := os.MkdirTemp(v.path("tmp"), "view-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp) // after success it is gone already
	if err := v.fillView(ctx, tmp, layers, metas); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, "layers"), []byte(list.String()), 0o600); err != nil {
		return "", err
	}
	if err := v.sync.syncFS(); err != nil {
		return "", err
	}
	return name, os.Rename(tmp, v.path("views", name))
}

func (v *vfs) fillView(ctx context.Context, dir string, layers []digest.Digest, metas []layerMeta) error {
	tree := filepath.Join(dir, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(tree, 0o755); err != nil { // whatever the umask is
		return err
	}
	for i, d := range layers {
		opts := copyOptions{whiteouts: true, keepRoot: metas[i].Root == nil}
		if err := copyTree(ctx, v.path("layers", d.Encoded(), "fs"), tree, opts); err != nil {
			return err
		}
	}
	return nil
}

// Prepare implements Snapshotter. Unlike that of overlayfs its snapshots are
// synced: losing part of a copy would damage files nobody touched.
func (v *vfs) Prepare(ctx context.Context, id string, layers []digest.Digest, opts PrepareOptions) error {
	final, err := v.snapshotPath(id)
	if err != nil {
		return err
	}
	if opts.SizeLimit > 0 && v.quota == nil {
		return errs.NotImplemented("cannot limit the size of a container's file system: %w", v.noQuota)
	}
	view, err := v.ensureView(ctx, layers)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(v.path("tmp"), "snapshot-")
	if err != nil {
		return err
	}
	err = v.fillSnapshot(ctx, tmp, view, opts)
	if err == nil {
		err = os.Rename(tmp, final)
	}
	if err == nil {
		return nil
	}
	os.RemoveAll(tmp)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return errs.Conflict("snapshot %s exists already", id)
	}
	return fmt.Errorf("cannot prepare snapshot %s: %w", id, err)
}

func (v *vfs) fillSnapshot(ctx context.Context, dir, view string, opts PrepareOptions) error {
	if err := os.Symlink(view, filepath.Join(dir, "view")); err != nil {
		return err
	}
	if opts.SizeLimit > 0 {
		if err := v.quota.limit(dir, opts.SizeLimit); err != nil {
			return err
		}
	}
	tree := filepath.Join(dir, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := copyTree(ctx, v.path("views", view, "fs"), tree, copyOptions{}); err != nil {
		return err
	}
	return v.sync.syncFS()
}

// snapshot finds the tree of a snapshot and that of the view it came from.
func (v *vfs) snapshot(id string) (tree, base string, err error) {
	dir, err := v.snapshotPath(id)
	if err != nil {
		return "", "", err
	}
	view, err := os.Readlink(filepath.Join(dir, "view"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", noSnapshot(id)
	}
	return filepath.Join(dir, "fs"), v.path("views", view, "fs"), err
}

// Mounts implements Snapshotter.
func (v *vfs) Mounts(id string) ([]mount.Mount, error) {
	tree, _, err := v.snapshot(id)
	if err != nil {
		return nil, err
	}
	return []mount.Mount{{Type: "bind", Source: tree, Options: []string{"rbind", "rw"}}}, nil
}

// View implements Snapshotter.
func (v *vfs) View(ctx context.Context, layers []digest.Digest) ([]mount.Mount, error) {
	view, err := v.ensureView(ctx, layers)
	if err != nil {
		return nil, err
	}
	return []mount.Mount{{Type: "bind", Source: v.path("views", view, "fs"), Options: []string{"rbind", "ro"}}}, nil
}

// Remove implements Snapshotter.
func (v *vfs) Remove(ctx context.Context, id string) error {
	dir, err := v.snapshotPath(id)
	if err != nil {
		return err
	}
	if err := v.quota.release(dir); err != nil {
		return fmt.Errorf("cannot lift the size limit of snapshot %s: %w", id, err)
	}
	return v.store.Remove(ctx, id)
}

// Changes implements Snapshotter.
func (v *vfs) Changes(ctx context.Context, id string) ([]Change, error) {
	tree, base, err := v.snapshot(id)
	if err != nil {
		return nil, err
	}
	upper, err := os.Open(tree)
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	lower, err := os.Open(base)
	if err != nil {
		return nil, err
	}
	defer lower.Close()
	root, err := rootAttrOf(lower)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t // changed last when it was given its name
	if err := unix.Stat(filepath.Dir(tree), &st); err != nil {
		return nil, err
	}
	c := comparer{sameness: sameness{ctx: ctx}, whole: true, since: st.Ctim}
	return c.compare(upper, lower, root)
}

// Diff implements Snapshotter.
func (v *vfs) Diff(ctx context.Context, id string, keep func([]Change) []Change, w io.Writer) error {
	changes, err := v.Changes(ctx, id)
	if err != nil {
		return err
	}
	tree, _, err := v.snapshot(id)
	if err != nil {
		return err
	}
	return writeDiff(ctx, tree, id, changes, keep, w)
}

// Usage implements Snapshotter.
func (v *vfs) Usage(ctx context.Context, id string) (size, inodes int64, err error) {
	changes, err := v.Changes(ctx, id)
	if err != nil {
		return 0, 0, err
	}
	tree, _, err := v.snapshot(id)
	if err != nil {
		return 0, 0, err
	}
	return changedUsage(tree, changes)
}

// Close implements Snapshotter. Nothing is made ahead: a copy is only good for one
// image, and takes the space of another container.
func (v *vfs) Close() error { return nil }

// Dirs implements Snapshotter.
func (v *vfs) Dirs(id string) map[string]string { return nil }

// LayerDirs implements Snapshotter.
func (v *vfs) LayerDirs(layers []digest.Digest) map[string]string { return nil }

// Status implements Snapshotter.
func (v *vfs) Status() [][2]string {
	return [][2]string{{"Backing Filesystem", backingFS(v.dir)}}
}
