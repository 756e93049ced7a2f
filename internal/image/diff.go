package image

import (
	"context"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/snapshot"
)

// Diff is what makes one image differ from another, as GET /images/diff answers
// it. Its JSON only ever gains fields.
type Diff struct {
	From, To DiffImage
	Files    []FileDiff   // sorted as a walk of the file system finds them
	Config   []ConfigDiff // by field, then by key
	Summary  DiffSummary
}

// DiffImage is one of the two images.
type DiffImage struct {
	Ref     string // as it was asked for
	ID      digest.Digest
	Created time.Time `json:",omitzero"`
	Size    int64     // unpacked, in bytes
	Layers  []DiffLayer
}

// DiffLayer is one layer of an image, bottom first.
type DiffLayer struct {
	DiffID    digest.Digest
	Size      int64  // unpacked, in bytes
	CreatedBy string `json:",omitempty"` // what made it, by the image's history
	Shared    bool   // both images have it, and all below it
}

// DiffSummary counts the files, and how many bytes came and went with them.
type DiffSummary struct {
	Added, Changed, Removed  int
	BytesAdded, BytesRemoved int64 // a changed file counts its growth or what it lost
}

// The kinds of differences.
const (
	DiffAdded   = "added"
	DiffChanged = "changed"
	DiffRemoved = "removed"
)

// FileDiff is one path that is not the same in both images.
type FileDiff struct {
	Path string
	Kind string    // added, changed or removed
	What []string  `json:",omitempty"` // of what changed: content, mode, owner, type, xattr
	Old  *FileNode `json:",omitempty"` // in the image compared from
	New  *FileNode `json:",omitempty"` // in the image compared to
}

// FileNode is what is at a path.
type FileNode struct {
	Type string // file, directory, symlink, fifo, socket, chardev, blockdev
	Mode uint32 // permissions, with setuid, setgid and sticky
	Size int64  // of a file, in bytes
	// Layer is the index of the layer it is in, in Layers of its image; -1 for
	// a directory no layer mentions.
	Layer int
}

// ConfigDiff is one setting that is not the same in both configurations. Old
// and New are strings, lists of strings or, for a health check, an object; nil
// is a setting that is not there.
type ConfigDiff struct {
	Field string // as the configuration calls it: Env, Cmd, Labels …
	Key   string `json:",omitempty"` // of a variable, label, port or volume
	Old   any
	New   any
}

// Diff compares two images: the files a container of each would see, and their
// configurations. Layers that both have at the bottom are not read. It fails as
// Resolve does.
func (m *Manager) Diff(ctx context.Context, from, to string) (*Diff, error) {
	in := m.begin()
	defer in.end()
	d := &Diff{Files: []FileDiff{}, Config: []ConfigDiff{}}
	old, oldConfig, err := m.diffImage(ctx, in, from, &d.From)
	if err != nil {
		return nil, err
	}
	now, nowConfig, err := m.diffImage(ctx, in, to, &d.To)
	if err != nil {
		return nil, err
	}
	for i := 0; i < min(len(old), len(now)) && old[i] == now[i]; i++ {
		d.From.Layers[i].Shared, d.To.Layers[i].Shared = true, true
	}
	files, err := m.opts.Snapshots.Compare(ctx, old, now)
	if err != nil {
		return nil, err
	}
	for i := range files {
		d.add(&files[i])
	}
	d.Config = diffConfig(oldConfig, nowConfig)
	return d, nil
}

// diffImage finds one of the images, unpacks it where it is not, and describes
// it. It is pinned until the ingest ends.
func (m *Manager) diffImage(ctx context.Context, in *ingest, ref string, to *DiffImage) ([]digest.Digest, *dockerspec.DockerOCIImage, error) {
	e, _, err := m.resolve(ref, nil)
	if err != nil {
		return nil, nil, err
	}
	if e, err = m.hold(in, e.id); err != nil {
		return nil, nil, err
	}
	if e, err = m.unpacked(ctx, e); err != nil {
		return nil, nil, err
	}
	config, err := e.config()
	if err != nil {
		return nil, nil, err
	}
	*to = DiffImage{Ref: ref, ID: e.id, Created: createdOf(config), Size: e.size(), Layers: []DiffLayer{}}
	made := []string{}
	for _, h := range config.History {
		if !h.EmptyLayer {
			made = append(made, h.CreatedBy)
		}
	}
	for i, l := range e.Layers {
		layer := DiffLayer{DiffID: l.DiffID, Size: l.Size}
		if i < len(made) {
			layer.CreatedBy = made[i]
		}
		to.Layers = append(to.Layers, layer)
	}
	return e.diffIDs(), config, nil
}

// add takes one difference in.
func (d *Diff) add(found *snapshot.Difference) {
	f := FileDiff{Path: found.Path, Kind: DiffChanged, Old: fileNode(found.Old), New: fileNode(found.New)}
	var grown int64
	switch {
	case found.Old == nil:
		f.Kind, grown = DiffAdded, f.New.Size
		d.Summary.Added++
	case found.New == nil:
		f.Kind, grown = DiffRemoved, -f.Old.Size
		d.Summary.Removed++
	default:
		f.What, grown = whatChanged(found.What), f.New.Size-f.Old.Size
		d.Summary.Changed++
	}
	if grown > 0 {
		d.Summary.BytesAdded += grown
	} else {
		d.Summary.BytesRemoved -= grown
	}
	d.Files = append(d.Files, f)
}

func whatChanged(what snapshot.Aspect) (list []string) {
	for _, a := range []struct {
		aspect snapshot.Aspect
		name   string
	}{{snapshot.Content, "content"}, {snapshot.Mode, "mode"}, {snapshot.Owner, "owner"}, {snapshot.Type, "type"}, {snapshot.Xattrs, "xattr"}} {
		if what&a.aspect != 0 {
			list = append(list, a.name)
		}
	}
	return list
}

func fileNode(n *snapshot.Node) *FileNode {
	if n == nil {
		return nil
	}
	return &FileNode{Type: fileType(n.Mode), Mode: n.Mode & 0o7777, Size: n.Size, Layer: n.Layer}
}

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		return "chardev"
	case unix.S_IFBLK:
		return "blockdev"
	}
	return "file"
}
