// Package du adds up what files take on a disk, as du(1) does: the blocks they
// have, which are fewer than their size where a file is sparse and more where
// it is small, and a file of several names once.
//
// It owns nothing. What the files are, it must not know.
package du

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// blockSize is the unit of st_blocks, whatever the file system's is; stat(2).
const blockSize = 512

// Tree returns the bytes that a file, or a directory with everything below it,
// takes on disk. It follows no symbolic link and enters no other file system.
// What disappears meanwhile, or is not there at all, takes nothing.
func Tree(ctx context.Context, path string) (int64, error) {
	w := walker{ctx: ctx, seen: map[inode]struct{}{}}
	parent, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return 0, nil
	}
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(parent)
	if err := w.entry(parent, filepath.Base(path)); err != nil {
		return 0, &os.PathError{Op: "measure", Path: path, Err: err}
	}
	return w.total, nil
}

// Blocks returns the bytes that a file takes on disk, without what is below it.
func Blocks(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return st.Blocks * blockSize, nil
}

type inode struct{ dev, ino uint64 }

// walker is one tree being added up.
type walker struct {
	ctx   context.Context // of Tree
	total int64
	dev   uint64 // file system of the tree; 0 until its root was seen
	seen  map[inode]struct{}
}

func (w *walker) entry(dirfd int, name string) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if w.dev == 0 {
		w.dev = uint64(st.Dev)
	}
	if uint64(st.Dev) != w.dev {
		return nil
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && st.Nlink > 1 {
		key := inode{uint64(st.Dev), st.Ino}
		if _, again := w.seen[key]; again {
			return nil
		}
		w.seen[key] = struct{}{}
	}
	w.total += st.Blocks * blockSize
	if !isDir {
		return nil
	}
	return w.dir(dirfd, name)
}

func (w *walker) dir(dirfd int, name string) error {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // it is not what it was
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && len(names) == 0 {
		if os.IsNotExist(err) {
			return nil // removed while it was open
		}
		return err
	}
	for _, name := range names {
		if err := w.entry(fd, name); err != nil {
			return err
		}
	}
	return nil
}
