package snapshot

import (
	"bytes"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/layer"
)

// rootAttr is what a layer says about the root directory itself. It is kept
// beside the layer's tree, because of a stack of layers it is not the topmost
// one's root that counts, but that of the topmost which mentions it.
type rootAttr struct {
	Mode   uint32            `json:"mode"` // permissions with setuid, setgid and sticky
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

// plainRoot is the root directory where no layer mentions it.
func plainRoot() rootAttr { return rootAttr{Mode: 0o755} }

func rootAttrOf(dir *os.File) (rootAttr, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return rootAttr{}, &os.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	r := rootAttr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}
	found, err := layer.Xattrs(int(dir.Fd()))
	if err != nil {
		return rootAttr{}, &os.PathError{Op: "getxattr", Path: dir.Name(), Err: err}
	}
	for name, value := range found {
		if r.Xattrs == nil {
			r.Xattrs = map[string][]byte{}
		}
		r.Xattrs[name] = []byte(value)
	}
	return r, nil
}

func (r rootAttr) equal(other rootAttr) bool {
	return r.Mode == other.Mode && r.UID == other.UID && r.GID == other.GID && maps.EqualFunc(r.Xattrs, other.Xattrs, bytes.Equal)
}

// make makes the directory.
func (r rootAttr) make(path string) error {
	if err := unix.Mkdir(path, r.Mode&0o777); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	// Most are what a new directory is, and to look takes less than to write.
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && len(r.Xattrs) == 0 && r.equal(rootAttr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}) {
		return nil
	}
	return r.apply(path)
}

// apply makes a directory without attributes that one.
func (r rootAttr) apply(path string) error {
	if err := unix.Lchown(path, r.UID, r.GID); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	if err := unix.Chmod(path, r.Mode); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	for name, value := range r.Xattrs {
		if err := unix.Setxattr(path, name, value, 0); err != nil && err != unix.ENOTSUP && err != unix.EPERM {
			return &os.PathError{Op: "setxattr", Path: path, Err: err}
		}
	}
	return nil
}

// rootOf is the root directory of a stack of layers, bottom first, and the
// index of the layer it is from; -1 is none of them.
func rootOf(metas []layerMeta) (rootAttr, int) {
	for i, m := range slices.Backward(metas) {
		if m.Root != nil {
			return *m.Root, i
		}
	}
	return plainRoot(), -1
}

// rootBelow is the root directory a snapshot began with.
func (o *overlay) rootBelow(s *overlaySnapshot) (rootAttr, error) {
	layers := make([]digest.Digest, len(s.links))
	o.mu.Lock()
	for i, link := range s.links {
		layers[len(layers)-1-i] = o.links[link]
	}
	o.mu.Unlock()
	metas, err := o.metas(layers)
	root, _ := rootOf(metas)
	return root, err
}

// root notes whether the root directories differ.
func (c *stackComparer) root(old, now []layerMeta) {
	a, i := rootOf(old)
	b, j := rootOf(now)
	var what Aspect
	if a.Mode != b.Mode {
		what |= Mode
	}
	if a.UID != b.UID || a.GID != b.GID {
		what |= Owner
	}
	if !maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal) {
		what |= Xattrs
	}
	if what != 0 {
		c.found = append(c.found, Difference{
			Path: "/", What: what,
			Old: &Node{Mode: unix.S_IFDIR | a.Mode, Layer: i},
			New: &Node{Mode: unix.S_IFDIR | b.Mode, Layer: j},
		})
	}
}
