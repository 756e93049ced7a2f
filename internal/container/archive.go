package container

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/snapshot"
)

// detachedRoot mounts the root file system of a container that does not run,
// visible to nobody else. The caller closes it.
func (m *Manager) detachedRoot(id string) (*os.File, error) {
	mounts, err := m.opts.Snapshots.Mounts(id)
	if err != nil {
		return nil, err
	}
	return mount.Detached(mounts)
}

// trailing keeps the end of a path that says "the directory itself".
func trailing(name string) string {
	switch {
	case strings.HasSuffix(name, "/."):
		return "/."
	case strings.HasSuffix(name, "/") && name != "/":
		return "/"
	}
	return ""
}

// StatPath describes a file of the container, whether it runs or not.
func (m *Manager) StatPath(ctx context.Context, ref, name string) (*api.PathStat, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return nil, err
	}
	t, err := m.open(ctx, c, name)
	if err != nil {
		return nil, err
	}
	defer t.close()
	return t.stat(ref, name)
}

func (t *tree) stat(ref, asked string) (*api.PathStat, error) {
	s, err := layer.StatPath(t.root, t.path)
	if err != nil {
		return nil, pathError(ref, asked, err)
	}
	return &api.PathStat{Name: s.Name, Size: s.Size, Mode: s.Mode, Mtime: s.Mtime, LinkTarget: s.LinkTarget}, nil
}

func pathError(ref, name string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR) && !strings.HasSuffix(name, "/"):
		return errs.NotFound("Could not find the file %s in container %s", name, ref)
	case errors.Is(err, syscall.ENOTDIR):
		return errs.InvalidArgument("%s in container %s is not a directory", name, ref)
	}
	return err
}

// CopyFrom sends a file or directory of the container as a tar archive. begin
// is called once, before the first byte, with what is going to be sent.
func (m *Manager) CopyFrom(ctx context.Context, ref, name string, begin func(*api.PathStat) io.Writer) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	t, err := m.open(ctx, c, name)
	if err != nil {
		return err
	}
	defer t.close()
	stat, err := t.stat(ref, name)
	if err != nil {
		return err
	}
	if err := layer.PackPath(ctx, t.root, t.path, begin(stat)); err != nil {
		return pathError(ref, name, err)
	}
	m.publish(c, events.ActionArchivePath)
	return nil
}

// CopyTo unpacks a tar archive into a directory of the container.
func (m *Manager) CopyTo(ctx context.Context, ref, name string, o CopyToOptions, r io.Reader) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	m.noteCopy(c)
	t, err := m.open(ctx, c, name)
	if err != nil {
		return err
	}
	defer t.close()
	stat, err := t.stat(ref, name)
	if err != nil {
		return err
	}
	if !stat.Mode.IsDir() && stat.LinkTarget == "" {
		return errs.InvalidArgument("extraction point is not a directory")
	}
	if err := t.writable(); err != nil {
		return err
	}
	rec := c.copy()
	options := layer.PathOptions{NoOverwriteDirNonDir: o.NoOverwriteDirNonDir}
	if o.CopyUIDGID && rec.Config.User != "" {
		user, err := m.resolveUser(ctx, &rec, rec.Config.User)
		if err != nil {
			return err
		}
		options.Chown = &layer.Owner{UID: int(user.UID), GID: int(user.GID)}
	}
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return errs.InvalidArgument("%w", err)
	}
	defer plain.Close()
	if err := layer.UnpackPath(ctx, t.root, t.path, plain, options); err != nil {
		return pathError(ref, name, err)
	}
	m.publish(c, events.ActionExtractToDir)
	return nil
}

// noteCopy records, before the first start, that the files may no longer be the
// image's, which others share.
func (m *Manager) noteCopy(c *Container) {
	c.mu.Lock()
	known := c.rec.HasBeenStarted || c.rec.CopiedInto
	c.rec.CopiedInto = true
	c.mu.Unlock()
	if !known {
		m.saveDurably(c)
	}
}

// Changes lists what the container changed in its image.
func (m *Manager) Changes(ctx context.Context, ref string) ([]api.FilesystemChange, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return nil, err
	}
	changes, err := m.opts.Snapshots.Changes(ctx, c.copy().ID)
	if err != nil {
		return nil, err
	}
	changes = withoutOwn(changes)
	list := make([]api.FilesystemChange, 0, len(changes))
	for _, change := range changes {
		if change.LayerOnly {
			continue
		}
		kind := api.ChangeModify
		switch change.Kind {
		case snapshot.Added:
			kind = api.ChangeAdd
		case snapshot.Deleted:
			kind = api.ChangeDelete
		}
		list = append(list, api.FilesystemChange{Kind: kind, Path: change.Path})
	}
	return list, nil
}

// Export sends the whole file system of the container, without its volumes, as
// a tar archive.
func (m *Manager) Export(ctx context.Context, ref string, w io.Writer) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	root, err := m.exportRoot(c)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := layer.Pack(ctx, root, w, layer.PackOptions{}); err != nil {
		return err
	}
	m.publish(c, events.ActionExport)
	return nil
}

// exportRoot is the root of the container. The writable layer of a running one
// must not be mounted a second time, so that it is looked at where it is.
func (m *Manager) exportRoot(c *Container) (*os.File, error) {
	rec := c.copy()
	if !rec.running() {
		return m.detachedRoot(rec.ID)
	}
	proc, err := rec.process()
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	return mount.RootOf(proc)
}

// copyTree copies a directory of a root file system into a directory of the
// host, which takes over its owner and mode. What is not there, or is no
// directory, leaves the target empty.
func copyTree(ctx context.Context, root *os.File, from, to string) error {
	stat, err := layer.StatPath(root, from+"/.")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !stat.Mode.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	target, err := os.OpenFile(to, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(layer.PackPath(ctx, root, from+"/.", w)) }()
	defer r.Close()
	return layer.UnpackPath(ctx, target, "/", r, layer.PathOptions{TakeRoot: true})
}
