package copytree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Options of Extract.
type Options struct {
	// KeepOwner gives files the owners, and the set-id bits, they have in the
	// container. Without it they belong to the caller.
	KeepOwner bool
	Warn      io.Writer // told what was left out
}

// Extract unpacks a stream whose first entry is the root of the tree, whatever
// it is called, as target. The parent of target must exist.
func Extract(r io.Reader, target string, opts Options) error {
	parent, base := filepath.Split(filepath.Clean(target))
	if base == "." || base == ".." || base == "" || base == string(os.PathSeparator) {
		parent, base = target, "."
	}
	if parent == "" {
		parent = "."
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	defer root.Close()
	x := &extractor{root: root, base: base, opts: opts, stem: "\x00"}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return x.finish()
		}
		if err != nil {
			return fmt.Errorf("cannot read the archive the engine sent: %w", err)
		}
		if err := x.entry(h, tr); err != nil {
			return err
		}
	}
}

type extractor struct {
	root *os.Root
	base string // what the tree's root is called below root
	stem string // what it is called in the stream; \x00 until known
	opts Options
	dirs []*tar.Header // ours, whose attributes are set at the end: they may forbid creating files
}

// local maps a name of the stream below root.
func (x *extractor) local(name string) string {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if x.stem == "\x00" {
		x.stem = clean
	}
	if clean == x.stem {
		return x.base
	}
	if x.stem != "" {
		clean = strings.TrimPrefix(clean, x.stem+"/")
	}
	return path.Join(x.base, clean)
}

func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	name := x.local(h.Name)
	if err := x.makeRoom(name, h); err != nil {
		return err
	}
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		return x.dir(name, h)
	case tar.TypeReg:
		err = x.file(name, h, r)
	case tar.TypeSymlink:
		err = x.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		err = x.root.Link(x.local(h.Linkname), name)
		return err
	case tar.TypeXGlobalHeader:
		return nil
	default:
		fmt.Fprintf(x.opts.Warn, "WARNING: %s is left out: it is a device or a pipe\n", h.Name)
		return nil
	}
	if err != nil {
		return err
	}
	return x.attributes(name, h)
}

// makeRoom removes what a file replaces. Directories and other files do not
// replace each other.
func (x *extractor) makeRoom(name string, h *tar.Header) error {
	info, err := x.root.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		if dir := path.Dir(name); dir != "." {
			return x.root.MkdirAll(dir, 0o755)
		}
		return nil
	}
	if err != nil {
		return err
	}
	isDir := h.Typeflag == tar.TypeDir
	switch {
	case info.IsDir() && isDir, name == ".":
		return nil
	case info.IsDir():
		return fmt.Errorf("cannot overwrite directory %q with non-directory %q", name, h.Name)
	case isDir:
		if st, err := x.root.Stat(name); err == nil && st.IsDir() {
			return nil // a link to a directory stays one
		}
		return fmt.Errorf("cannot overwrite non-directory %q with directory %q", name, h.Name)
	}
	return x.root.Remove(name)
}

// dir leaves the attributes of a directory that exists as they are, as cp does.
func (x *extractor) dir(name string, h *tar.Header) error {
	if _, err := x.root.Stat(name); err == nil {
		return nil
	}
	h.Name = name
	x.dirs = append(x.dirs, h)
	return x.root.Mkdir(name, 0o700)
}

func (x *extractor) file(name string, h *tar.Header, r io.Reader) error {
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// attributes sets owner, mode and time, in this order: a change of owner clears
// the set-id bits.
func (x *extractor) attributes(name string, h *tar.Header) error {
	if x.opts.KeepOwner {
		if err := x.root.Lchown(name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	mode := h.FileInfo().Mode()
	keep := os.ModePerm | os.ModeSticky
	if x.opts.KeepOwner {
		keep |= os.ModeSetuid | os.ModeSetgid
	}
	if err := x.root.Chmod(name, mode&keep); err != nil {
		return err
	}
	return x.root.Chtimes(name, time.Now(), h.ModTime)
}

func (x *extractor) finish() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if err := x.attributes(x.dirs[i].Name, x.dirs[i]); err != nil {
			return err
		}
	}
	return nil
}
