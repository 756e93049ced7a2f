package snapshot

import (
	"errors"
	"fmt"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// ErrNoRoom is why a layer is not unpacked any further: what is left of the disk
// is kept for what runs on it. It comes with unix.ENOSPC.
var ErrNoRoom = errors.New("kept for what runs there")

const (
	// keptPart of the file system is what unpacking leaves for the containers
	// that write to it, but not more than maxKept: on a large disk that is
	// enough to notice in time. A layer of a few kilobytes may unpack to
	// terabytes; how many it will be nothing in it tells.
	keptPart     = 32
	maxKept      = 1 << 30
	maxKeptFiles = 10_000
	// manyLayers are unpacked at once: each may take such a part of the room
	// until it looks again. It looks at least after maxStride bytes.
	manyLayers = 32
	maxStride  = 4 << 20
	minStride  = 16 << 10
)

// room is what unpacking one layer may take. Blocks are counted, not the length
// of files: holes cost nothing.
type room struct {
	dir             string
	measured        bool
	kept, keptFiles int64 // bytes and files that are not to be taken
}

// look tells how many bytes may be written until the next look, and fails with
// ErrNoRoom when it is none.
func (r *room) look() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(r.dir, &st); err != nil {
		return 0, fmt.Errorf("cannot tell how full the disk is: %w", err)
	}
	free, files := int64(st.Bavail)*st.Bsize, int64(st.Ffree)
	if !r.measured {
		// A disk that is nearly full already takes a small layer all the same.
		r.kept = min(int64(st.Blocks)*st.Bsize/keptPart, maxKept, free/2)
		r.keptFiles = min(int64(st.Files)/keptPart, maxKeptFiles, files/2)
		r.measured = true
	}
	if free < r.kept || free == 0 {
		return 0, fmt.Errorf("the last %s of the disk are %w: %w", units.HumanSize(float64(free)), ErrNoRoom, unix.ENOSPC)
	}
	if st.Files > 0 && files < r.keptFiles { // not every file system counts them
		return 0, fmt.Errorf("the last %d files that the disk can have are %w: %w", files, ErrNoRoom, unix.ENOSPC)
	}
	return max(minStride, min(maxStride, (free-r.kept)/manyLayers)), nil
}
