package content

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// FileSystem tells how full the file system of the store is, in bytes: what is
// taken, and what there is for all who are not root, as df(1) counts it.
func (s *Store) FileSystem() (used, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, 0, fmt.Errorf("cannot tell how full the disk is: %w", err)
	}
	used = int64(st.Blocks-st.Bfree) * st.Bsize
	return used, used + int64(st.Bavail)*st.Bsize, nil
}
