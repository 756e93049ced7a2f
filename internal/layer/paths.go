package layer

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/mount"
)

// PackPath writes a path inside root as the archive of Docker's
// GET /containers/{id}/archive: a file under its base name, a directory with
// all that is in it under its own. A link at the end of the path is packed
// itself unless the path ends in a slash or "/."; "/." names the content of the
// directory "./", and the root directory gives absolute names, both as clients
// expect. Fails with ErrNotFound.
func PackPath(ctx context.Context, root *os.File, p string, w io.Writer) error {
	abs := absolute(p)
	fd, st, err := lookPath(root, abs)
	if err != nil {
		return pathError(p, err)
	}
	defer unix.Close(fd)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return packDirectory(ctx, fd, path.Base(abs), w)
	}
	dirName, base := path.Split(abs)
	parent, err := mount.OpenIn(int(root.Fd()), dirName, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return pathError(p, err)
	}
	defer unix.Close(parent)
	pk, err := newPackerAt(ctx, parent, w, &PackOptions{})
	if err != nil {
		return err
	}
	defer pk.close()
	err = pk.entry(pk.rootfd, base, base, true)
	if errors.Is(err, unix.ENOENT) {
		return pathError(p, unix.ENOENT)
	}
	if err != nil {
		return err
	}
	return pk.finish()
}

func packDirectory(ctx context.Context, fd int, name string, w io.Writer) error {
	pk, err := newPackerAt(ctx, fd, w, &PackOptions{})
	if err != nil {
		return err
	}
	defer pk.close()
	if name == "/" {
		name = ""
	}
	if err := pk.entry(pk.rootfd, ".", name+"/", true); err != nil {
		return err
	}
	return pk.finish()
}

// PathOptions change how UnpackPath writes.
type PathOptions struct {
	// NoOverwriteDirNonDir refuses to replace a directory by something else
	// and the other way round.
	NoOverwriteDirNonDir bool
	// TakeRoot gives the directory itself the attributes of the archive's entry
	// "./", which otherwise is ignored.
	TakeRoot bool
	// Chown, when set, is the owner of everything unpacked.
	Chown *Owner
	// MapOwner, when set, translates the owner in the archive.
	MapOwner func(Owner) (Owner, error)
}

// UnpackPath unpacks an archive into an existing directory inside root, as
// Docker's PUT /containers/{id}/archive does: links, those of the directory's
// path and those found beneath it, are followed inside root, and the directory
// itself keeps its attributes unless told otherwise. The container may be running; nothing it does
// meanwhile leads out of root. Fails with ErrNotFound when the directory does
// not exist and ErrInvalidArgument when it is none; what was unpacked before a
// failure stays.
func UnpackPath(ctx context.Context, root *os.File, dir string, r io.Reader, opts PathOptions) error {
	rootfd := int(root.Fd())
	fd, err := mount.OpenIn(rootfd, absolute(dir), unix.O_PATH)
	if err != nil {
		return pathError(dir, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	unix.Close(fd)
	if err != nil {
		return pathError(dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errs.InvalidArgument("extraction point is not a directory")
	}
	real, err := realPath(rootfd, absolute(dir))
	if err != nil {
		return pathError(dir, err)
	}
	u, err := newUnpacker(ctx, root, &UnpackOptions{
		Whiteouts:            Literal,
		Chown:                opts.Chown,
		MapOwner:             opts.MapOwner,
		NoOverwriteDirNonDir: opts.NoOverwriteDirNonDir,
		KeepRoot:             !opts.TakeRoot,
	})
	if err != nil {
		return err
	}
	u.prefix = strings.TrimPrefix(real, "/")
	u.tree.clamp = true
	_, err = u.unpack(r)
	return err
}
