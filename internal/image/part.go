package image

import (
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// An index's images share its names. This file is how one of them goes, and
// what goes with a name.

// imagesOf are the images that a reference keeps: the one it means first.
func (rm *remover) imagesOf(key string, e *entry) []*entry {
	rm.m.mu.RLock()
	defer rm.m.mu.RUnlock()
	list := []*entry{e}
	for _, id := range rm.m.byIndex[rm.m.byRef[key].Target.Digest].images() {
		if other := rm.m.byID[id]; other != nil && id != e.id {
			list = append(list, other)
		}
	}
	return list
}

// isPart tells whether the image is one of several in each index it is kept of,
// and no name means it.
func (rm *remover) isPart(e *entry) bool {
	rm.m.mu.RLock()
	defer rm.m.mu.RUnlock()
	part := false
	for _, ref := range rm.m.byRef {
		rec := rm.m.byIndex[ref.Target.Digest]
		alone := len(rec.images()) == 1
		if ref.ID == e.id && (rec == nil || alone || rm.opts.Platform == nil) {
			return false
		}
		part = part || rec.keeps(e.id)
	}
	return part
}

// part takes an image out of the indexes it is kept of, and what tells of it.
// The names stay with the others.
func (rm *remover) part(e *entry) error {
	if conflict := rm.conflict(e, !rm.opts.Force); conflict != nil {
		return conflict
	}
	if err := rm.takeOut(e.id); err != nil {
		return err
	}
	return rm.unnamed(e)
}

func (rm *remover) takeOut(id digest.Digest) error {
	m := rm.m
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rec := range m.byIndex {
		if !rec.keeps(id) {
			continue
		}
		rec.eachBlob(func(d digest.Digest) { rm.blobs[d] = true })
		if err := m.putIndex(rec.without(id)); err != nil {
			return err
		}
		for _, k := range rec.Kept {
			if k.ID == id {
				rm.done = append(rm.done, image.DeleteResponse{Untagged: k.Descriptor.Digest.String()})
			}
		}
	}
	return nil
}

// without is the record without an image, and without what tells of that.
func (rec *indexRecord) without(id digest.Digest) *indexRecord {
	gone := map[string]bool{}
	for _, k := range rec.Kept {
		if k.ID == id {
			gone[k.Descriptor.Digest.String()] = true
		}
	}
	rest := &indexRecord{Target: rec.Target}
	for _, k := range rec.Kept {
		if k.ID != id && !gone[k.Descriptor.Annotations[annotationReferenceDigest]] {
			rest.Kept = append(rest.Kept, k)
		}
	}
	return rest
}
