package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/topdir"
	"github.com/gantry-containers/gantry/internal/trash"
)

// layerMeta is the file "meta" beside the tree of a layer.
type layerMeta struct {
	Size int64     `json:"size"`           // bytes in regular files
	Link string    `json:"link"`           // its short name, unique in the store
	Root *rootAttr `json:"root,omitempty"` // nil when the layer does not mention the root
}

// store is the part every driver shares: layers by diff ID below
// layers/<hex>/{fs,meta}, and the directories around them.
type store struct {
	dir       string
	whiteouts layer.Whiteouts
	sync      *syncer
	removed   atomic.Uint64 // names what is being removed
	bin       trash.Bin     // empties tmp

	mu     sync.Mutex // guards the maps
	layers map[digest.Digest]layerMeta
	links  map[string]digest.Digest
	busy   map[digest.Digest]chan struct{} // closed when the one at work is done
	disk   map[digest.Digest]int64         // what layers take on disk, once that was asked for
}

func openStore(dir string, whiteouts layer.Whiteouts) (*store, error) {
	s := &store{
		dir: dir, whiteouts: whiteouts,
		layers: map[digest.Digest]layerMeta{},
		links:  map[string]digest.Digest{},
		busy:   map[digest.Digest]chan struct{}{},
		disk:   map[digest.Digest]int64{},
	}
	if err := os.RemoveAll(s.path("tmp")); err != nil {
		return nil, fmt.Errorf("cannot remove what an earlier run left: %w", err)
	}
	for _, d := range []string{"tmp", "layers", "snapshots"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, err
		}
	}
	topdir.Mark(s.path("tmp"))
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := s.load(e.Name()); err != nil {
			return nil, err
		}
	}
	s.sync = newSyncer(s.path("layers"))
	return s, nil
}

func (s *store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// load learns of the layer in layers/<hex>. One without a description is half
// removed, and goes; what cannot be a layer is left alone and not known.
func (s *store) load(hex string) error {
	dgst, ok := fromHex(hex)
	if !ok {
		return nil
	}
	data, err := os.ReadFile(s.path("layers", hex, "meta"))
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(s.path("layers", hex))
	}
	if err != nil {
		return err
	}
	var meta layerMeta
	if err := json.Unmarshal(data, &meta); err != nil {
		return fmt.Errorf("layer %s has a damaged description: %w", dgst, err)
	}
	s.layers[dgst] = meta
	s.links[meta.Link] = dgst
	return nil
}

// fromHex finds the digest a layer directory is named after; the algorithm
// shows in its length.
func fromHex(hex string) (digest.Digest, bool) {
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		if len(hex) == a.Size()*2 {
			d := digest.NewDigestFromEncoded(a, hex)
			return d, d.Validate() == nil
		}
	}
	return "", false
}

func (s *store) meta(diffID digest.Digest) (layerMeta, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.layers[diffID]
	return m, ok
}

// HasLayer implements Snapshotter.
func (s *store) HasLayer(diffID digest.Digest) bool {
	_, ok := s.meta(diffID)
	return ok
}

// Layers implements Snapshotter.
func (s *store) Layers(context.Context) ([]LayerInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]LayerInfo, 0, len(s.layers))
	for d, m := range s.layers {
		infos = append(infos, LayerInfo{d, m.Size})
	}
	return infos, nil
}

// metas returns what is known of layers, in their order.
func (s *store) metas(layers []digest.Digest) ([]layerMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	metas := make([]layerMeta, len(layers))
	for i, d := range layers {
		m, ok := s.layers[d]
		if !ok {
			return nil, errs.NotFound("layer %s is not unpacked", d)
		}
		metas[i] = m
	}
	return metas, nil
}

// acquire makes the caller the only one at work on a layer until it calls
// release.
func (s *store) acquire(ctx context.Context, diffID digest.Digest) (release func(), err error) {
	for {
		s.mu.Lock()
		other, taken := s.busy[diffID]
		if !taken {
			mine := make(chan struct{})
			s.busy[diffID] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.busy, diffID)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// unpack implements Snapshotter.Unpack. publish, if not nil, runs once the
// layer is durable, before it is known.
func (s *store) unpack(ctx context.Context, diffID digest.Digest, tar io.Reader, publish func(layerMeta) error) (int64, error) {
	if err := diffID.Validate(); err != nil {
		return 0, errs.InvalidArgument("%q is not a digest: %v", string(diffID), err)
	}
	release, err := s.acquire(ctx, diffID)
	if err != nil {
		return 0, err
	}
	defer release()
	if m, ok := s.meta(diffID); ok {
		return m.Size, nil
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "layer-")
	if err != nil {
		return 0, fmt.Errorf("cannot unpack layer %s: %w", diffID, err)
	}
	defer os.RemoveAll(tmp) // after success it is gone already
	meta, err := s.fill(ctx, tmp, diffID, tar)
	if err == nil {
		err = s.commit(tmp, diffID, &meta, publish)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot unpack layer %s: %w", diffID, err)
	}
	return meta.Size, nil
}

// fill unpacks and verifies a layer in tmp/fs.
func (s *store) fill(ctx context.Context, tmp string, diffID digest.Digest, tar io.Reader) (layerMeta, error) {
	tree := filepath.Join(tmp, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return layerMeta{}, err
	}
	if err := os.Chmod(tree, 0o755); err != nil { // whatever the umask is
		return layerMeta{}, err
	}
	root, err := os.Open(tree)
	if err != nil {
		return layerMeta{}, err
	}
	defer root.Close()
	digester := diffID.Algorithm().Digester()
	result, err := layer.Unpack(ctx, root, io.TeeReader(tar, digester.Hash()), layer.UnpackOptions{
		Whiteouts: s.whiteouts, Verified: true, Room: (&room{dir: tree}).look,
	})
	if err != nil {
		return layerMeta{}, err
	}
	if got := digester.Digest(); got != diffID {
		return layerMeta{}, errs.InvalidArgument("its content has digest %s", got)
	}
	meta := layerMeta{Size: result.Size}
	if result.Root {
		attr, err := rootAttrOf(root)
		if err != nil {
			return layerMeta{}, err
		}
		meta.Root = &attr
	}
	return meta, nil
}

// commit makes the layer in tmp durable and known.
func (s *store) commit(tmp string, diffID digest.Digest, meta *layerMeta, publish func(layerMeta) error) (err error) {
	meta.Link = s.reserveLink(diffID)
	there := "" // where it is by its name already
	defer func() {
		if err != nil {
			if there != "" {
				err = errors.Join(err, s.discard(there))
			}
			s.mu.Lock()
			delete(s.links, meta.Link)
			s.mu.Unlock()
		}
	}()
	data, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "meta"), data, 0o600); err != nil {
		return err
	}
	if err := s.sync.syncFS(); err != nil {
		return err
	}
	final := s.path("layers", diffID.Encoded())
	// What could not be removed whole.
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return err
	}
	there = final
	if err := s.sync.syncDir(); err != nil {
		return err
	}
	if publish != nil {
		if err := publish(*meta); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.layers[diffID] = *meta
	s.mu.Unlock()
	return nil
}

// reserveLink picks the shortest unused prefix of a layer's hex as its short
// name: overlay mounts name many layers in one page.
func (s *store) reserveLink(diffID digest.Digest) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	hex := diffID.Encoded()
	n := 6
	for ; n < len(hex); n++ {
		if _, taken := s.links[hex[:n]]; !taken {
			break
		}
	}
	s.links[hex[:n]] = diffID
	return hex[:n]
}

// removeLayer implements Snapshotter.RemoveLayer. unpublish, if not nil, runs
// before the tree goes.
func (s *store) removeLayer(ctx context.Context, diffID digest.Digest, unpublish func(layerMeta) error) error {
	release, err := s.acquire(ctx, diffID)
	if err != nil {
		return err
	}
	defer release()
	meta, ok := s.meta(diffID)
	if !ok {
		return errs.NotFound("layer %s is not unpacked", diffID)
	}
	if unpublish != nil {
		if err := unpublish(meta); err != nil {
			return err
		}
	}
	s.mu.Lock()
	delete(s.layers, diffID)
	delete(s.disk, diffID)
	delete(s.links, meta.Link)
	s.mu.Unlock()
	return s.discard(s.path("layers", diffID.Encoded()))
}

// discard removes a directory such that it is gone under its name at once, and
// in whole even if this process dies.
func (s *store) discard(path string) error {
	tmp, err := s.aside(path)
	if err != nil {
		return err
	}
	return os.RemoveAll(tmp)
}

// aside gives a directory another name, under which it is rubbish. A disk may be
// too full even for that; then the directory loses what says that it is whole.
func (s *store) aside(path string) (string, error) {
	tmp := s.rubbish()
	err := unix.Rename(path, tmp)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		if merr := os.Remove(filepath.Join(path, "meta")); merr == nil || errors.Is(merr, fs.ErrNotExist) {
			return path, nil
		}
	}
	if err != nil {
		err = &os.LinkError{Op: "rename", Old: path, New: tmp, Err: err}
	}
	return tmp, err
}

// rubbish is a name nobody has that the next start would sweep away.
func (s *store) rubbish() string {
	return s.path("tmp", fmt.Sprintf("removed-%d", s.removed.Add(1)))
}

// discardAside is discard for what nobody waits for to be gone from the disk.
func (s *store) discardAside(path string) error {
	tmp, err := s.aside(path)
	if err != nil {
		return err
	}
	s.bin.Throw(tmp)
	return nil
}

// snapshotPath checks an id before it becomes a file name.
func (s *store) snapshotPath(id string) (string, error) {
	if id == "" || id == "." || id == ".." || len(id) > 200 || strings.ContainsAny(id, "/\x00") {
		return "", errs.InvalidArgument("%q cannot name a snapshot", id)
	}
	return s.path("snapshots", id), nil
}

// Snapshots implements Snapshotter.
func (s *store) Snapshots(context.Context) ([]string, error) {
	entries, err := os.ReadDir(s.path("snapshots"))
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.Name()
	}
	return ids, nil
}

// Remove implements Snapshotter.
func (s *store) Remove(_ context.Context, id string) error {
	path, err := s.snapshotPath(id)
	if err != nil {
		return err
	}
	err = s.discardAside(path)
	if errors.Is(err, fs.ErrNotExist) {
		return noSnapshot(id)
	}
	return err
}

func noSnapshot(id string) error { return errs.NotFound("no such snapshot: %s", id) }
