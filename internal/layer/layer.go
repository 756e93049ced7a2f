// Package layer turns tar archives into file trees and back.
//
// It owns the tar dialects images are written in (PAX, GNU, whiteouts as the
// OCI image specification's layer.md defines them and as overlayfs stores them)
// and the rules that keep an archive inside the tree it is unpacked into. It
// knows directories by descriptor and never follows a symbolic link out of
// one. It must not know what a snapshot, an image or a container is.
package layer

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Whiteouts says how the deletions of a layer are kept in a tree.
type Whiteouts int

const (
	// Literal keeps .wh. entries as the plain files they are in the archive;
	// Pack writes plain files as they are.
	Literal Whiteouts = iota
	// Overlay keeps them as overlayfs does: a character device 0:0 for a
	// deleted name, the attribute trusted.overlay.opaque=y on a directory
	// whose lower content is hidden. Pack turns these back into .wh. entries.
	Overlay
	// Remove carries them out on the tree. What the same archive put there
	// stays, as layer.md demands. Not for Pack.
	Remove
)

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // AUFS's own bookkeeping
	whiteoutOpaque = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
	overlayXattrs  = "trusted.overlay."
	xattrPAX       = "SCHILY.xattr."
	libarchivePAX  = "LIBARCHIVE.xattr."
)

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// UnpackOptions change how an archive becomes a tree.
type UnpackOptions struct {
	Whiteouts Whiteouts
	// MapOwner, when set, translates the owner in the archive.
	MapOwner func(Owner) (Owner, error)
	// Chown, when set, is the owner of everything unpacked.
	Chown *Owner
	// NoOverwriteDirNonDir refuses to replace a directory by something else
	// and the other way round.
	NoOverwriteDirNonDir bool
	// KeepRoot leaves the attributes of the root directory as they are even
	// when the archive has an entry for it.
	KeepRoot bool
	// Verified tells that the caller holds all that is read against a digest.
	// The archive may end right behind the content of a file then, as those
	// of umoci do, for nothing can have been cut off.
	Verified bool
	// Room, when set, is asked before anything is written to the disk, how many
	// bytes may be until it is asked again. What is a hole in a file does not
	// count, an entry counts for a block. Its error ends the unpacking.
	Room func() (int64, error)
}

// Result says what Unpack found.
type Result struct {
	// Size is the sum of the sizes of all regular files, in bytes.
	Size int64
	// Root tells whether the archive had an entry for the root directory.
	Root bool
}

// reopen opens a directory again for reading, so that a descriptor opened with
// O_PATH serves as well.
func reopen(dirfd int) (int, error) {
	fd, err := openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "the root directory", Err: err}
	}
	return fd, nil
}

// openat never follows a symbolic link in the last component, and is only
// given single components or paths known to hold none.
func openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func badArchive(format string, args ...any) error {
	return errs.InvalidArgument("bad archive: "+format, args...)
}

// archiveError words a failure of the tar reader.
func archiveError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return badArchive("it ends in the middle: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("cannot read the archive: %w", err)
}
