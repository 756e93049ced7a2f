package copytree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Packed is a tar stream and the directory of the container it belongs in.
type Packed struct {
	io.ReadCloser
	Dir string
}

// Pack starts packing src for to. followLink resolves src itself, never what is
// below it.
func Pack(src string, followLink bool, to Destination) (*Packed, error) {
	info, err := os.Lstat(filepath.Clean(src))
	followed := src
	mustBeDir := endsInSeparator(src) || strings.HasSuffix(src, "/.")
	if err == nil && info.Mode()&os.ModeSymlink != 0 && (followLink || mustBeDir) {
		if followed, err = filepath.EvalSymlinks(src); err == nil {
			info, err = os.Stat(followed)
		}
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() && mustBeDir {
		return nil, fmt.Errorf("%s is not a directory", src)
	}
	abs, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	named := abs
	if contentsOnly(filepath.ToSlash(src)) {
		named = filepath.ToSlash(abs) + "/."
	}
	dir, name, err := to.place(named, info.IsDir())
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(w, followed, name)) }()
	return &Packed{r, dir}, nil
}

// packer remembers files with several links, which are stored once.
type packer struct {
	tw    *tar.Writer
	links map[inode]string
}

func pack(w io.Writer, root, name string) error {
	p := &packer{tar.NewWriter(w), map[inode]string{}}
	root = filepath.Clean(root)
	err := filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		return p.add(file, path.Join(name, filepath.ToSlash(rel)))
	})
	return errors.Join(err, p.tw.Close())
}

func (p *packer) add(file, name string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket != 0 {
		return nil // tar has no sockets, and they mean nothing elsewhere
	}
	link := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = name
	if info.IsDir() {
		h.Name += "/"
	}
	h.Format, h.Uname, h.Gname = tar.FormatPAX, "", ""
	if id, ok := inodeOf(info); ok && info.Mode().IsRegular() {
		if first, seen := p.links[id]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.tw.WriteHeader(h)
		}
		p.links[id] = h.Name
	}
	if err := p.tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	return p.content(file, h.Size)
}

// content writes exactly as many bytes as the header announced, even when the
// file changes meanwhile.
func (p *packer) content(file string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyN(p.tw, f, size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read: %d of %d bytes", file, n, size)
	}
	return err
}

type inode struct{ dev, ino uint64 }
