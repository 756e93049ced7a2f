package image

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// restore reads the records.
func (m *Manager) restore() error {
	images, err := m.images.All()
	if err != nil {
		return fmt.Errorf("cannot read the images: %w", err)
	}
	for key, rec := range images {
		id := digest.Digest(key)
		if m.complete(id, rec) {
			m.byID[id] = m.newEntry(id, *rec)
		}
	}
	indexes, err := m.indexes.All()
	if err != nil {
		return fmt.Errorf("cannot read the image indexes: %w", err)
	}
	for key, rec := range indexes {
		m.restoreIndex(digest.Digest(key), rec)
	}
	refs, err := m.refs.All()
	if err != nil {
		return fmt.Errorf("cannot read the tags: %w", err)
	}
	for key, ref := range refs {
		m.restoreRef(key, *ref)
	}
	if err := m.restoreSources(); err != nil {
		return err
	}
	m.restoreUses()
	needed := map[digest.Digest]bool{}
	for _, ref := range m.byRef {
		needed[ref.Target.Digest] = true
	}
	for dgst := range m.byIndex {
		if !needed[dgst] {
			delete(m.byIndex, dgst) // Collect deletes its record
		}
	}
	return nil
}

// complete tells whether all that a container needs of the image is there: the
// layers, or the blobs they can be made of again.
func (m *Manager) complete(id digest.Digest, rec *record) bool {
	if !m.stored(id) {
		return false
	}
	for i, l := range rec.Layers {
		if l.Packed || !m.opts.Snapshots.HasLayer(l.DiffID) {
			if !m.stored(l.Blob.Digest) {
				return false
			}
			rec.Layers[i].Packed = true
		}
	}
	return true
}

func (m *Manager) stored(dgst digest.Digest) bool {
	_, err := m.opts.Content.Stat(dgst)
	return err == nil
}

// restoreIndex learns of what is there of an index.
func (m *Manager) restoreIndex(dgst digest.Digest, rec *indexRecord) {
	if rec.Target.Digest != dgst || !m.stored(dgst) {
		return
	}
	there := &indexRecord{Target: rec.Target}
	for _, k := range rec.Kept {
		if m.stored(k.Descriptor.Digest) && (k.ID == "" || m.byID[k.ID] != nil) {
			there.Kept = append(there.Kept, k)
		}
	}
	if there.main() != "" {
		m.byIndex[dgst] = there
	}
}

// restoreRef learns of a reference. One to an index that is gone, or from
// before indexes were kept, stands for the manifest of the image it means.
func (m *Manager) restoreRef(key string, ref refRecord) {
	if rec := m.byIndex[ref.Target.Digest]; rec != nil {
		ref.ID = rec.main()
	}
	e := m.byID[ref.ID]
	if e == nil {
		return
	}
	if ref.Target.Digest == "" || isIndex(ref.Target.MediaType) && m.byIndex[ref.Target.Digest] == nil {
		ref.Target = e.Manifest
	}
	if !isDigestKey(key) && m.replaced(ref.Target, e) {
		ref.Target = e.Manifest
	}
	m.byRef[key] = ref
}

// replaced tells whether a tag still stands for the manifest that the image had
// before a push compressed its layers: the process ended between the record of
// the image and that of the tag.
func (m *Manager) replaced(target ocispec.Descriptor, e *entry) bool {
	if !e.Made || isIndex(target.MediaType) || target.Digest == e.Manifest.Digest {
		return false
	}
	manifest, _, err := m.manifest(target.Digest)
	if err != nil {
		return true
	}
	for i, l := range manifest.Layers {
		if i < len(e.Layers) && l.Digest == e.Layers[i].DiffID && !m.stored(l.Digest) {
			return true
		}
	}
	return false
}
