package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ahead"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/mount"
)

// overlay stacks layers with overlayfs.
//
//	layers/<hex>/{fs,meta}       the layers
//	l/<short>                    links to ../layers/<hex>/fs
//	snapshots/<id>/{fs,work}     upper and work directory
//	snapshots/<id>/lower         the layers, as the target of a symbolic link
//	empty/                       a directory to stack what needs one more
//	ahead/                       snapshots made ahead, see spare.go
//
// The list of layers is the target of a link because that is one system call,
// and because file systems keep links with their metadata: a crash leaves all
// of it or nothing, without a sync.
type overlay struct {
	*store
	options []string // that every mount gets
	// volatile is whether the kernel knows that option, which is Linux 5.10.
	volatile bool
	quota    *quota // nil where the file system has none
	noQuota  error  // why
	spares   *ahead.Dirs
	last     atomic.Pointer[kind] // of snapshot
	kinds    sync.Map             // of the spares, by path
}

const (
	noLayers  = "-" // the target of "lower" when there are none
	ephemeral = "~" // begins it when the snapshot is mounted volatile
)

func newOverlay(dir string) (*overlay, error) {
	s, err := openStore(dir, layer.Overlay)
	if err != nil {
		return nil, err
	}
	o := &overlay{store: s}
	for _, d := range []string{"l", "empty"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := o.relink(); err != nil {
		return nil, err
	}
	if err := o.probe(); err != nil {
		return nil, err
	}
	o.quota, o.noQuota = openQuota(s.path("snapshots"))
	o.spares = ahead.OpenDirs(s.path("ahead"), o.makeSpare)
	return o, nil
}

// relink makes l/ agree with the layers there are.
func (o *overlay) relink() error {
	entries, err := os.ReadDir(o.path("l"))
	if err != nil {
		return err
	}
	present := map[string]bool{}
	for _, e := range entries {
		dgst, known := o.links[e.Name()]
		target, err := os.Readlink(o.path("l", e.Name()))
		if known && err == nil && target == linkTarget(dgst) {
			present[e.Name()] = true
			continue
		}
		if err := os.RemoveAll(o.path("l", e.Name())); err != nil {
			return err
		}
	}
	for link, dgst := range o.links {
		if !present[link] {
			if err := os.Symlink(linkTarget(dgst), o.path("l", link)); err != nil {
				return err
			}
		}
	}
	return nil
}

func linkTarget(diffID digest.Digest) string {
	return filepath.Join("..", "layers", diffID.Encoded(), "fs")
}

// probe mounts an overlay beneath dir once: whether its file system can carry
// one is known by no other means.
func (o *overlay) probe() error {
	tmp, err := os.MkdirTemp(o.path("tmp"), "probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	upper, work := filepath.Join(tmp, "fs"), filepath.Join(tmp, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	m := o.stack([]string{o.path("empty")}, upper, work)
	f, err := mount.Detached([]mount.Mount{withVolatile(m)})
	o.volatile = err == nil
	if err != nil {
		f, err = mount.Detached([]mount.Mount{m})
	}
	if err != nil {
		return errs.NotImplemented("%s cannot hold overlayfs snapshots: %w", o.dir, err)
	}
	f.Close()
	if err := unix.Setxattr(upper, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return errs.NotImplemented("%s cannot hold overlayfs snapshots: cannot set extended attributes: %w", o.dir, err)
	}
	// The module is loaded now. What the distribution turned on by default
	// would make upper directories that mean nothing elsewhere.
	for _, feature := range []string{"index", "redirect_dir", "metacopy"} {
		if _, err := os.Stat("/sys/module/overlay/parameters/" + feature); err == nil {
			o.options = append(o.options, feature+"=off")
		}
	}
	return nil
}

// stack describes an overlay of lower, topmost first, and of upper unless it is
// empty.
func (o *overlay) stack(lower []string, upper, work string) mount.Mount {
	escaped := make([]string, len(lower))
	for i, dir := range lower {
		escaped[i] = mount.EscapeLower(dir)
	}
	options := []string{"lowerdir=" + strings.Join(escaped, ":")}
	if upper != "" {
		options = append(options, "upperdir="+mount.EscapeDir(upper), "workdir="+mount.EscapeDir(work))
	} else {
		options = append(options, "ro")
	}
	return mount.Mount{Type: "overlay", Source: "overlay", Options: append(options, o.options...)}
}

func withVolatile(m mount.Mount) mount.Mount {
	m.Options = append(slices.Clone(m.Options), "volatile")
	return m
}

// Name implements Snapshotter.
func (o *overlay) Name() string { return OverlayFS }

// Unpack implements Snapshotter.
func (o *overlay) Unpack(ctx context.Context, diffID digest.Digest, tar io.Reader) (int64, error) {
	return o.unpack(ctx, diffID, tar, func(m layerMeta) error {
		link := o.path("l", m.Link)
		err := os.Symlink(linkTarget(diffID), link)
		if errors.Is(err, fs.ErrExist) { // of a layer whose removal was cut short
			if err = os.Remove(link); err == nil {
				err = os.Symlink(linkTarget(diffID), link)
			}
		}
		return err
	})
}

// RemoveLayer implements Snapshotter.
func (o *overlay) RemoveLayer(ctx context.Context, diffID digest.Digest) error {
	return o.removeLayer(ctx, diffID, func(m layerMeta) error {
		err := os.Remove(o.path("l", m.Link))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// Prepare implements Snapshotter.
func (o *overlay) Prepare(_ context.Context, id string, layers []digest.Digest, opts PrepareOptions) error {
	final, err := o.snapshotPath(id)
	if err != nil {
		return err
	}
	metas, err := o.metas(layers)
	if err != nil {
		return err
	}
	if opts.SizeLimit > 0 && o.quota == nil {
		return errs.NotImplemented("cannot limit the size of a container's file system: %w", o.noQuota)
	}
	// What is made before a project is chosen would not count towards it.
	if opts.SizeLimit == 0 && o.fromSpare(final, metas, opts) {
		return nil
	}
	tmp, err := os.MkdirTemp(o.path("tmp"), "snapshot-")
	if err != nil {
		return err
	}
	err = o.fillSnapshot(tmp, metas, opts)
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

// lowerOf is what "lower" of a snapshot says.
func (o *overlay) lowerOf(metas []layerMeta, opts PrepareOptions) string {
	names := make([]string, len(metas))
	for i, m := range metas {
		names[len(metas)-1-i] = m.Link
	}
	list := noLayers
	if len(names) > 0 {
		list = strings.Join(names, ":")
	}
	if opts.Ephemeral && o.volatile {
		list = ephemeral + list
	}
	return list
}

func (o *overlay) fillSnapshot(dir string, metas []layerMeta, opts PrepareOptions) error {
	if err := os.Symlink(o.lowerOf(metas, opts), filepath.Join(dir, "lower")); err != nil {
		return err
	}
	if opts.SizeLimit > 0 {
		if err := o.quota.limit(dir, opts.SizeLimit); err != nil {
			return err
		}
	}
	root, _ := rootOf(metas)
	if err := root.make(filepath.Join(dir, "fs")); err != nil {
		return err
	}
	return os.Mkdir(filepath.Join(dir, "work"), 0o700)
}

// Remove implements Snapshotter.
func (o *overlay) Remove(ctx context.Context, id string) error {
	dir, err := o.snapshotPath(id)
	if err != nil {
		return err
	}
	if err := o.quota.release(dir); err != nil {
		return fmt.Errorf("cannot lift the size limit of snapshot %s: %w", id, err)
	}
	return o.store.Remove(ctx, id)
}

// overlaySnapshot is what a snapshot's directory says about it.
type overlaySnapshot struct {
	dir      string
	links    []string // short names of the layers, topmost first
	lower    []string // their paths
	volatile bool
}

func (s *overlaySnapshot) upper() string { return filepath.Join(s.dir, "fs") }
func (s *overlaySnapshot) work() string  { return filepath.Join(s.dir, "work") }

// find reads what there is to know of a snapshot.
func (o *overlay) find(id string) (overlaySnapshot, error) {
	dir, err := o.snapshotPath(id)
	if err != nil {
		return overlaySnapshot{}, err
	}
	list, err := os.Readlink(filepath.Join(dir, "lower"))
	if errors.Is(err, fs.ErrNotExist) {
		return overlaySnapshot{}, noSnapshot(id)
	}
	if err != nil {
		return overlaySnapshot{}, err
	}
	s := overlaySnapshot{dir: dir}
	list, s.volatile = strings.CutPrefix(list, ephemeral)
	if list != noLayers {
		for link := range strings.SplitSeq(list, ":") {
			s.links = append(s.links, link)
			s.lower = append(s.lower, o.path("l", link))
		}
	}
	return s, nil
}

// Mounts implements Snapshotter.
func (o *overlay) Mounts(id string) ([]mount.Mount, error) {
	s, err := o.find(id)
	if err != nil {
		return nil, err
	}
	if len(s.lower) == 0 {
		return []mount.Mount{{Type: "bind", Source: s.upper(), Options: []string{"rbind", "rw"}}}, nil
	}
	m := o.stack(s.lower, s.upper(), s.work())
	if s.volatile {
		// The kernel refuses what was mounted volatile before, in case it was
		// not synced when the machine crashed. We were told not to mind.
		if err := os.RemoveAll(filepath.Join(s.work(), "work", "incompat")); err != nil {
			return nil, err
		}
		m = withVolatile(m)
	}
	return []mount.Mount{m}, nil
}

// View implements Snapshotter.
func (o *overlay) View(_ context.Context, layers []digest.Digest) ([]mount.Mount, error) {
	metas, err := o.metas(layers)
	if err != nil {
		return nil, err
	}
	var lower []string
	for i := len(metas) - 1; i >= 0; i-- {
		lower = append(lower, o.path("l", metas[i].Link))
	}
	return o.view(lower), nil
}

// view mounts lower directories, topmost first, for reading.
func (o *overlay) view(lower []string) []mount.Mount {
	switch len(lower) {
	case 0:
		return []mount.Mount{{Type: "bind", Source: o.path("empty"), Options: []string{"rbind", "ro"}}}
	case 1: // overlayfs wants two when there is no upper directory
		lower = append(lower, o.path("empty"))
	}
	return []mount.Mount{o.stack(lower, "", "")}
}

// Dirs implements Snapshotter.
func (o *overlay) Dirs(id string) map[string]string {
	s, err := o.find(id)
	if err != nil {
		return nil
	}
	for i, link := range s.lower {
		if target, err := os.Readlink(link); err == nil {
			s.lower[i] = filepath.Join(filepath.Dir(link), target)
		}
	}
	return map[string]string{
		"LowerDir":  strings.Join(s.lower, ":"),
		"UpperDir":  s.upper(),
		"WorkDir":   s.work(),
		"MergedDir": filepath.Join(s.dir, "merged"),
	}
}

// LayerDirs implements Snapshotter: the directory of the top layer, and those
// below it from the top down. There is no merged directory, as nothing is
// mounted for an image.
func (o *overlay) LayerDirs(layers []digest.Digest) map[string]string {
	dirs := map[string]string{}
	var lower []string
	for i, diffID := range slices.Backward(layers) {
		if !o.HasLayer(diffID) {
			return nil
		}
		path := o.path("layers", diffID.Encoded(), "fs")
		if i == len(layers)-1 {
			dirs["UpperDir"] = path
		} else {
			lower = append(lower, path)
		}
	}
	if len(lower) > 0 {
		dirs["LowerDir"] = strings.Join(lower, ":")
	}
	return dirs
}

// Status implements Snapshotter.
func (o *overlay) Status() [][2]string {
	quota := "true"
	if o.quota == nil {
		quota = "false"
	}
	return [][2]string{
		{"Backing Filesystem", backingFS(o.dir)},
		{"Supports d_type", "true"},
		{"Using metacopy", "false"},
		{"Native Overlay Diff", "true"},
		{"userxattr", "false"},
		{"Supports size limit", quota},
	}
}
