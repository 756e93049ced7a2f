// Package copytree is the local half of `cp`: it decides where a copy goes, by
// the rules of cp -r that Docker documents, packs local files into a tar stream
// and unpacks one that came from a container.
//
// What a container sends is not trusted: everything is created below one open
// directory, and nothing in the stream leads out of it. The package knows no
// engine.
package copytree

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// LocalTarget is the local name the root of a copied tree gets. src is a path
// in a container; whether it ends in a slash and dot matters.
func LocalTarget(src string, srcIsDir bool, dst string) (string, error) {
	info, err := os.Stat(dst)
	exists := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	switch {
	case exists && info.IsDir():
		base := path.Base(src)
		if contentsOnly(src) {
			return filepath.Clean(dst), nil
		}
		return filepath.Join(dst, base), nil
	case exists && srcIsDir:
		return "", fmt.Errorf("cannot copy directory to %s: it is a file", dst)
	case exists && endsInSeparator(dst):
		return "", fmt.Errorf("%s is not a directory", dst)
	case !exists && !srcIsDir && endsInSeparator(dst):
		return "", fmt.Errorf("no such directory: %s", dst)
	}
	return filepath.Clean(dst), nil
}

// contentsOnly says that a directory's contents are meant: dir/. and the root.
func contentsOnly(p string) bool {
	return p == "." || p == "" || strings.HasSuffix(p, "/.") || path.Clean("/"+p) == "/"
}

func endsInSeparator(p string) bool {
	return strings.HasSuffix(p, "/") || strings.HasSuffix(p, string(os.PathSeparator))
}

// Destination is a path in a container as the engine described it.
type Destination struct {
	Path          string
	Exists, IsDir bool
}

// place is the directory to unpack in, and the name the tree gets there; an
// empty name means its contents.
func (d Destination) place(src string, srcIsDir bool) (dir, name string, err error) {
	asserted := strings.HasSuffix(d.Path, "/") || strings.HasSuffix(d.Path, "/.")
	clean := path.Clean("/" + d.Path)
	switch {
	case d.Exists && d.IsDir:
		if srcIsDir && (contentsOnly(filepath.ToSlash(src))) {
			return d.Path, "", nil
		}
		return d.Path, filepath.Base(src), nil
	case d.Exists && srcIsDir:
		return "", "", fmt.Errorf("cannot copy directory to %s: it is a file", d.Path)
	case d.Exists && asserted:
		return "", "", fmt.Errorf("%s is not a directory", d.Path)
	case !d.Exists && !srcIsDir && asserted:
		return "", "", fmt.Errorf("no such directory: %s", d.Path)
	}
	return path.Dir(clean), path.Base(clean), nil
}
