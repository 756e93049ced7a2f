// Package snapshot keeps the layers of images as file trees and stacks them
// into the root file systems of containers.
//
// A layer is a tree named by its diff ID and unpacked once, independently of
// any other. A snapshot is a writable tree over an ordered list of layers. The
// package owns one directory per driver; everything in it is either complete
// and named, or under tmp/ and swept away by New. It must not know what an
// image or a container is, which of them still need a layer or a snapshot, or
// how a container mounts its root.
package snapshot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/mount"
)

// Kind is what happened to a path; its values are those of Docker's API.
type Kind uint8

// The kinds of changes.
const (
	Modified Kind = 0
	Added    Kind = 1
	Deleted  Kind = 2
)

// Change is one difference between a snapshot and the layers below it. Path is
// absolute within the snapshot.
type Change struct {
	Kind Kind
	Path string
	// Entries says of a modified directory that it is one only for what came,
	// went or changed in it: its mode, owner and attributes are the same.
	Entries bool
	// LayerOnly says that the layer must have the path for what else it says,
	// and that the path itself is as it was: another name of a changed file,
	// a directory of which only the time is another.
	LayerOnly bool
}

// LayerInfo describes an unpacked layer. Size is the sum of the sizes of its
// regular files, in bytes.
type LayerInfo struct {
	DiffID digest.Digest
	Size   int64
}

// PrepareOptions change how a snapshot is made.
type PrepareOptions struct {
	// SizeLimit bounds the bytes the writable tree may take; 0 does not.
	SizeLimit int64
	// Ephemeral says that the snapshot need not survive a crash of the machine.
	// Where the driver can, nothing in it is ever synced then, not even when
	// asked to: the kernel otherwise syncs the whole disk below an overlay each
	// time it is unmounted.
	Ephemeral bool
	// Entries are what the caller will make in the snapshot, where the layers have the
	// directory and nothing of that name: a snapshot may have them already. The rest
	// is the caller's, and so are they to leave out of what Changes says.
	Entries []Entry
}

// Entry is an empty file with mode 0755, or a symbolic link where it has a target.
type Entry struct {
	Dir    string // of the root directory, or "."
	Name   string
	Target string
}

// Snapshotter is implemented by every driver and checked by the suite in
// snapshottest. Methods may be called concurrently, for the same layer or
// snapshot too unless stated otherwise.
type Snapshotter interface {
	// Name is the driver's name, as info shows it.
	Name() string

	// HasLayer tells whether a layer is unpacked.
	HasLayer(diffID digest.Digest) bool

	// Unpack writes the layer in an uncompressed tar archive to disk and
	// returns its size in bytes. The archive is held against diffID while it
	// streams; if it differs or is no layer, Unpack fails with
	// ErrInvalidArgument. A failed or interrupted Unpack leaves nothing
	// behind; a successful one survives power loss. If the layer is there
	// already the archive is not read. Other layers need not be there.
	Unpack(ctx context.Context, diffID digest.Digest, tar io.Reader) (size int64, err error)

	// RemoveLayer removes a layer, which no snapshot may use any more. Fails
	// with ErrNotFound.
	RemoveLayer(ctx context.Context, diffID digest.Digest) error

	// Layers lists the unpacked layers in no particular order.
	Layers(ctx context.Context) ([]LayerInfo, error)

	// Prepare makes the writable snapshot id over layers, bottom first. It is
	// not synced to disk. Fails with ErrNotFound when a layer is missing, with
	// ErrConflict when id is taken and with ErrNotImplemented when the
	// size cannot be limited.
	Prepare(ctx context.Context, id string, layers []digest.Digest, opts PrepareOptions) error

	// Mounts says how to mount a snapshot: always exactly one mount. Fails
	// with ErrNotFound.
	Mounts(id string) ([]mount.Mount, error)

	// View says how to mount layers, bottom first, for reading only. It holds
	// as long as the layers do. Fails with ErrNotFound.
	View(ctx context.Context, layers []digest.Digest) ([]mount.Mount, error)

	// Remove deletes a snapshot, which must not be mounted. Fails with
	// ErrNotFound.
	Remove(ctx context.Context, id string) error

	// Snapshots lists the ids of all snapshots in no particular order.
	Snapshots(ctx context.Context) ([]string, error)

	// Changes lists what differs from the layers, sorted by path. A directory
	// in which something changed counts as modified, except for the root,
	// which does for its own attributes only. Fails with ErrNotFound.
	Changes(ctx context.Context, id string) ([]Change, error)

	// Usage returns the size of the writable tree in bytes, as the sum of the
	// sizes of what it holds beyond the layers, and the number of inodes it
	// takes. Fails with ErrNotFound.
	Usage(ctx context.Context, id string) (size, inodes int64, err error)

	// Disk tells what the layers take on disk; SnapshotDisk what one snapshot
	// does, in bytes of blocks, or fails with ErrNotFound.
	Disk(ctx context.Context) (Disk, error)
	SnapshotDisk(ctx context.Context, id string) (int64, error)

	// Compare lists what makes one stack of layers, bottom first, differ from
	// another, sorted as a walk finds it. What both have at the bottom is not
	// read. Fails with ErrNotFound for a layer that is not unpacked.
	Compare(ctx context.Context, from, to []digest.Digest) ([]Difference, error)

	// Diff writes the changes as an uncompressed layer archive. keep, if not
	// nil, chooses which of them; it may take the list apart. Only what
	// changed is read. Fails with ErrNotFound, also when the snapshot is
	// removed meanwhile.
	Diff(ctx context.Context, id string, keep func([]Change) []Change, w io.Writer) error

	// Status lists what info shows about the driver.
	Status() [][2]string

	// Dirs returns the directories of a snapshot as inspect shows them; empty
	// when there is no such snapshot.
	Dirs(id string) map[string]string

	// LayerDirs returns the directories of layers, bottom first, as inspect of
	// an image shows them; empty where they have none of their own.
	LayerDirs(layers []digest.Digest) map[string]string

	// Close ends what goes on in the background and removes what was made ahead.
	// Layers and snapshots stay. Of the other methods none is called any more.
	Close() error
}

// The drivers New knows.
const (
	OverlayFS = "overlayfs"
	VFS       = "vfs"
)

// New opens the snapshots of a driver in dir/<driver>, creating the directory
// when needed, and removes what an interrupted process left there. Two
// processes must not open the same directory. Docker's name overlay2 means
// overlayfs; the empty name means overlayfs where it works beneath dir, or has
// been used there, and vfs elsewhere. Fails with ErrInvalidArgument for an unknown driver and with
// ErrNotImplemented when the file system of dir cannot carry it.
func New(driver, dir string) (Snapshotter, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	switch driver {
	case OverlayFS, "overlay2", "overlay":
		return newOverlay(filepath.Join(dir, OverlayFS))
	case VFS:
		return newVFS(filepath.Join(dir, VFS))
	case "":
		s, err := newOverlay(filepath.Join(dir, OverlayFS))
		// Once there are layers the choice is made: falling back would make
		// every image lose its content.
		if errors.Is(err, errdefs.ErrNotImplemented) && !hasLayers(filepath.Join(dir, OverlayFS)) {
			return newVFS(filepath.Join(dir, VFS))
		}
		return s, err
	}
	return nil, errs.InvalidArgument("no storage driver is called %q; there are %s and %s", driver, OverlayFS, VFS)
}

func hasLayers(dir string) bool {
	entries, err := os.ReadDir(filepath.Join(dir, "layers"))
	return err == nil && len(entries) > 0
}
