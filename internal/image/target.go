package image

import (
	"reflect"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// indexRecord is what is here of an image index that a name stands for. The
// bytes of the index itself always are.
type indexRecord struct {
	Target ocispec.Descriptor `json:"target"`
	// Kept is in the order of the index; one within it follows what it lists.
	Kept []keptManifest `json:"kept"`
}

// keptManifest is one manifest a name stands for, by itself or in an index.
type keptManifest struct {
	// Descriptor is as the index has it, with its annotations.
	Descriptor ocispec.Descriptor `json:"descriptor"`
	// ID is the image's; empty for what is no image but carried all the same:
	// an attestation, an index within the index, something unknown.
	ID       digest.Digest    `json:"id,omitempty"`
	Platform ocispec.Platform `json:"platform,omitzero"` // of the image
	// Blobs are those the manifest names that are kept for it: configuration
	// and layers.
	Blobs []ocispec.Descriptor `json:"blobs,omitempty"`
}

// find returns what is kept of a manifest.
func (rec *indexRecord) find(manifest digest.Digest) *keptManifest {
	if rec == nil {
		return nil
	}
	for i := range rec.Kept {
		if rec.Kept[i].Descriptor.Digest == manifest {
			return &rec.Kept[i]
		}
	}
	return nil
}

// keeps tells whether the image is kept.
func (rec *indexRecord) keeps(id digest.Digest) bool {
	return rec != nil && slices.ContainsFunc(rec.Kept, func(k keptManifest) bool { return k.ID == id })
}

// images are the IDs of the images kept.
func (rec *indexRecord) images() (ids []digest.Digest) {
	if rec == nil {
		return nil
	}
	for _, k := range rec.Kept {
		if k.ID != "" && !slices.Contains(ids, k.ID) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// choose is the image kept that suits the platform best; empty when none does.
func (rec *indexRecord) choose(want ocispec.Platform) (id digest.Digest) {
	best := -1
	for _, k := range rec.Kept {
		if k.ID == "" {
			continue
		}
		if r := rank(want, k.Platform); r >= 0 && (best < 0 || r < best) {
			id, best = k.ID, r
		}
	}
	return id
}

// main is the image a name means when no platform is asked for: the host's, or
// the first there is.
func (rec *indexRecord) main() digest.Digest {
	if id := rec.choose(HostPlatform()); id != "" {
		return id
	}
	if ids := rec.images(); len(ids) > 0 {
		return ids[0]
	}
	return ""
}

// merged is the record with what another has of the same index; its order is
// that of other, which is the newer, with what only rec has before it.
func (rec *indexRecord) merged(other *indexRecord) *indexRecord {
	if rec == nil {
		return other
	}
	all := &indexRecord{Target: other.Target}
	for _, k := range rec.Kept {
		if other.find(k.Descriptor.Digest) == nil {
			all.Kept = append(all.Kept, k)
		}
	}
	for _, k := range other.Kept {
		if had := rec.find(k.Descriptor.Digest); had != nil && len(had.Blobs) > len(k.Blobs) {
			k.Blobs = had.Blobs
		}
		all.Kept = append(all.Kept, k)
	}
	return all
}

// target is what a name is to stand for. Everything it consists of is pinned by
// the ingest it came with.
type target struct {
	desc    ocispec.Descriptor
	index   *indexRecord             // nil when it is one manifest
	entries map[digest.Digest]*entry // the images of the index, or the one
	main    digest.Digest            // of one manifest
}

// oneImage is the target of an image by its manifest.
func oneImage(desc ocispec.Descriptor, e *entry) *target {
	return &target{desc: bare(desc), entries: map[digest.Digest]*entry{e.id: e}, main: e.id}
}

// bare is a descriptor without what an index says about it.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// has tells whether the image is part of the target.
func (t *target) has(id digest.Digest) bool { return t.entries[id] != nil }

// entry is the image the name will mean.
func (t *target) entry() *entry {
	if t.index != nil {
		return t.entries[t.index.main()]
	}
	return t.entries[t.main]
}

// point makes the reference name the image, by the manifest it is kept under.
func (m *Manager) point(named reference.Named, e *entry, in *ingest) (before digest.Digest, err error) {
	return m.pointTo(named, oneImage(e.Manifest, e), in)
}

// pointTo makes the reference stand for the target, and returns which image it
// named before. An image that was removed since it came in, by somebody else,
// is recorded again when an ingest has all of it pinned; without one that is an
// error. An index is merged with what is kept of it already.
func (m *Manager) pointTo(named reference.Named, t *target, in *ingest) (before digest.Digest, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, e := range t.entries {
		if m.byID[id] != nil {
			continue
		}
		if in == nil {
			return "", errs.NotFound("No such image: %s", id)
		}
		if err := m.images.Put(id.String(), &e.record); err != nil {
			return "", err
		}
		m.byID[id] = e
	}
	main := t.main
	if t.index != nil {
		had := m.byIndex[t.desc.Digest]
		rec := had.merged(t.index)
		if !reflect.DeepEqual(had, rec) {
			if err := m.putIndex(rec); err != nil {
				return "", err
			}
		}
		main = rec.main()
	}
	key := refKey(named)
	before = m.byRef[key].ID
	if err := m.putRef(key, refRecord{ID: main, Target: t.desc, Tagged: time.Now().UTC()}); err != nil {
		return before, err
	}
	return before, m.dropIndexes()
}

// putRef records a reference, unless it is a digest, which does not move, and
// says the same already. The caller holds mu.
func (m *Manager) putRef(key string, ref refRecord) error {
	had, ok := m.byRef[key]
	if ok && isDigestKey(key) && had.ID == ref.ID && had.Target.Digest == ref.Target.Digest {
		return nil
	}
	if err := m.refs.Put(key, &ref); err != nil {
		return err
	}
	m.byRef[key] = ref
	return nil
}

// putIndex records what is kept of an index, and makes the names that stand for
// it mean the image they now do. The caller holds mu.
func (m *Manager) putIndex(rec *indexRecord) error {
	dgst := rec.Target.Digest
	if err := m.indexes.Put(dgst.String(), rec); err != nil {
		return err
	}
	m.byIndex[dgst] = rec
	main := rec.main()
	for key, ref := range m.byRef {
		if ref.Target.Digest == dgst && ref.ID != main {
			ref.ID = main
			if err := m.refs.Put(key, &ref); err != nil {
				return err
			}
			m.byRef[key] = ref
		}
	}
	return nil
}

// dropIndexes deletes the records of indexes no name stands for. The caller
// holds mu.
func (m *Manager) dropIndexes() error {
	needed := map[digest.Digest]bool{}
	for _, ref := range m.byRef {
		needed[ref.Target.Digest] = true
	}
	for dgst := range m.byIndex {
		if needed[dgst] {
			continue
		}
		if err := m.indexes.Delete(dgst.String()); err != nil {
			return err
		}
		delete(m.byIndex, dgst)
	}
	return nil
}
