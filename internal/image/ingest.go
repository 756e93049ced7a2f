package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/content"
)

// pins counts who needs a blob or a layer that no image names yet.
type pins struct {
	mu     sync.Mutex // guards what is in the maps
	blobs  map[digest.Digest]int
	layers map[digest.Digest]int
}

// ingest is an image on its way in. What it pins is safe from being removed;
// when it ends, what no image came to name is removed.
type ingest struct {
	m      *Manager
	mu     sync.Mutex // guards what follows
	blobs  map[digest.Digest]bool
	layers map[digest.Digest]bool
}

func (m *Manager) begin() *ingest {
	return &ingest{m: m, blobs: map[digest.Digest]bool{}, layers: map[digest.Digest]bool{}}
}

func (in *ingest) pinBlob(d digest.Digest) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.blobs[d] {
		in.blobs[d] = true
		in.m.pins.add(in.m.pins.blobs, d)
	}
}

func (in *ingest) pinLayer(d digest.Digest) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.layers[d] {
		in.layers[d] = true
		in.m.pins.add(in.m.pins.layers, d)
	}
}

// pinEntry pins all of an image that is recorded. The caller holds the
// manager's mu, so that the image cannot be removed before.
func (in *ingest) pinEntry(e *entry) {
	in.pinBlob(e.id)
	in.pinBlob(e.Manifest.Digest)
	for _, l := range e.Layers {
		in.pinBlob(l.Blob.Digest)
		in.pinLayer(l.DiffID)
	}
}

// pinIndex pins all that is kept of an index besides its images; nil is none.
// The caller holds the manager's mu.
func (in *ingest) pinIndex(rec *indexRecord) {
	if rec == nil {
		return
	}
	rec.eachBlob(in.pinBlob)
}

// eachBlob calls f for every blob that is kept because of the index.
func (rec *indexRecord) eachBlob(f func(digest.Digest)) {
	f(rec.Target.Digest)
	for _, k := range rec.Kept {
		k.eachBlob(f)
	}
}

func (k *keptManifest) eachBlob(f func(digest.Digest)) {
	f(k.Descriptor.Digest)
	for _, d := range k.Blobs {
		f(d.Digest)
	}
}

func (p *pins) add(set map[digest.Digest]int, d digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	set[d]++
}

func (p *pins) drop(set map[digest.Digest]int, keys map[digest.Digest]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range keys {
		if set[d]--; set[d] <= 0 {
			delete(set, d)
		}
	}
}

func (p *pins) has(set map[digest.Digest]int, d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return set[d] > 0
}

// end unpins everything and removes what has become garbage.
func (in *ingest) end() {
	in.mu.Lock()
	blobs, layers := in.blobs, in.layers
	in.blobs, in.layers = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	in.mu.Unlock()
	in.m.pins.drop(in.m.pins.blobs, blobs)
	in.m.pins.drop(in.m.pins.layers, layers)
	// What cannot be removed now is found by Collect.
	in.m.sweep(context.Background(), blobs, layers)
}

// settle tells the store that what came is named now: it need not be kept to go
// on with.
func (in *ingest) settle() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for d := range in.blobs {
		in.m.opts.Content.Settle(d)
	}
}

// put stores a blob and pins it. An empty digest is one not known yet; a
// negative size likewise.
func (in *ingest) put(ctx context.Context, r io.Reader, expected digest.Digest, size int64) (digest.Digest, int64, error) {
	if expected != "" {
		in.pinBlob(expected)
	}
	w, err := in.m.opts.Content.NewWriter(ctx, expected, size)
	if err != nil {
		return "", 0, err
	}
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return "", 0, err
	}
	dgst, err := in.commit(w)
	return dgst, w.Size(), err
}

func (in *ingest) putBytes(ctx context.Context, data []byte) (digest.Digest, error) {
	dgst, _, err := in.put(ctx, bytes.NewReader(data), digest.FromBytes(data), int64(len(data)))
	return dgst, err
}

// putManifest stores a manifest or an index by its descriptor.
func (in *ingest) putManifest(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	if in.adopt(desc.Digest) {
		return nil
	}
	_, _, err := in.put(ctx, bytes.NewReader(data), desc.Digest, int64(len(data)))
	return err
}

// commit makes a blob appear and pins it at once.
func (in *ingest) commit(w *content.Writer) (digest.Digest, error) {
	in.m.sweeping.RLock()
	defer in.m.sweeping.RUnlock()
	dgst, err := w.Commit()
	if err == nil {
		in.pinBlob(dgst)
	}
	return dgst, err
}

// adopt pins a blob that may be in the store already, and tells whether it is.
func (in *ingest) adopt(d digest.Digest) bool {
	in.m.sweeping.RLock()
	defer in.m.sweeping.RUnlock()
	in.pinBlob(d)
	_, err := in.m.opts.Content.Stat(d)
	return err == nil
}

// adoptLayer pins a layer that may be there already, and tells whether it is.
func (in *ingest) adoptLayer(diffID digest.Digest) bool {
	in.m.sweeping.RLock()
	defer in.m.sweeping.RUnlock()
	in.pinLayer(diffID)
	return in.m.opts.Snapshots.HasLayer(diffID)
}

// sweep removes those of the given blobs and layers that nothing needs.
func (m *Manager) sweep(ctx context.Context, blobs, layers map[digest.Digest]bool) error {
	m.sweeping.Lock()
	defer m.sweeping.Unlock()
	keepBlobs, keepLayers := m.named()
	var failed []error
	for d := range blobs {
		if keepBlobs[d] || m.pins.has(m.pins.blobs, d) {
			continue
		}
		if err := m.opts.Content.Delete(d); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			failed = append(failed, err)
		}
	}
	for d := range layers {
		if keepLayers[d] || m.pins.has(m.pins.layers, d) || !m.opts.Snapshots.HasLayer(d) {
			continue
		}
		if err := m.opts.Snapshots.RemoveLayer(ctx, d); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// named is every blob and layer that an image names or a container stands on.
func (m *Manager) named() (blobs, layers map[digest.Digest]bool) {
	blobs, layers = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, d := range m.opts.LayersInUse() {
		layers[d] = true
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for id, e := range m.byID {
		blobs[id], blobs[e.Manifest.Digest] = true, true
		for _, l := range e.Layers {
			blobs[l.Blob.Digest], layers[l.DiffID] = true, true
		}
	}
	for _, ref := range m.byRef {
		blobs[ref.Target.Digest] = true
	}
	for _, rec := range m.byIndex {
		rec.eachBlob(func(d digest.Digest) { blobs[d] = true })
	}
	return blobs, layers
}

// Collect removes every blob, layer, record and reference that belongs to no
// whole image, and what nobody went on with for a day: parts of blobs, and where
// blobs were being sent to. The engine calls it once the containers are known,
// and may call it at any time.
func (m *Manager) Collect(ctx context.Context) error {
	blobs, layers := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	err := m.opts.Content.Walk(func(info content.Info) error {
		blobs[info.Digest] = true
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	found, err := m.opts.Snapshots.Layers(ctx)
	if err != nil {
		return err
	}
	for _, l := range found {
		layers[l.DiffID] = true
	}
	_, err = m.opts.Content.DropPartials(time.Now().Add(-content.PartialAge))
	return errors.Join(err, m.uploads.dropOld(), m.dropStale(), m.sweep(ctx, blobs, layers))
}

// dropStale deletes records that restore left out, and references to them.
func (m *Manager) dropStale() error {
	images, err1 := m.images.All()
	refs, err2 := m.refs.All()
	indexes, err3 := m.indexes.All()
	m.mu.Lock()
	defer m.mu.Unlock()
	failed := []error{err1, err2, err3}
	for key := range refs {
		if _, ok := m.byRef[key]; !ok {
			failed = append(failed, m.refs.Delete(key))
		}
	}
	for key := range indexes {
		if m.byIndex[digest.Digest(key)] == nil {
			failed = append(failed, m.indexes.Delete(key))
		}
	}
	for key := range images {
		if m.byID[digest.Digest(key)] == nil {
			failed = append(failed, m.images.Delete(key))
		}
	}
	return errors.Join(failed...)
}
