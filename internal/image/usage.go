package image

import (
	"context"

	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/filter"
	"github.com/gantry-containers/gantry/internal/snapshot"
)

// Usage is what images take on disk, in bytes as du(1) counts them.
type Usage struct {
	// Total is everything there is on behalf of images: unpacked layers,
	// blobs, unfinished downloads, and the directories they are in.
	Total int64
	// Reclaimable is the part of it that would go if every image went that no
	// container was made from.
	Reclaimable int64
	// Active is how many of the images containers were made from.
	Active int
	// Images are as List has them, but Size is what the image has on disk,
	// unpacked and packed, SharedSize the part of that which other images
	// have as well, and Containers how many were made from it.
	Images []image.Summary
}

// disk is what is stored for images, by what it is.
type disk struct {
	layers, blobs map[digest.Digest]int64
	unfinished    int64
	total         int64
}

// measure looks at the disk.
func (m *Manager) measure(ctx context.Context) (*disk, error) {
	var trees snapshot.Disk
	var blobs content.Disk
	var err error
	if trees, err = m.opts.Snapshots.Disk(ctx); err != nil {
		return nil, err
	}
	if blobs, err = m.opts.Content.Disk(ctx); err != nil {
		return nil, err
	}
	d := &disk{layers: trees.Layers, blobs: blobs.Blobs, unfinished: blobs.Unfinished}
	d.total = trees.Other + blobs.Other + blobs.Unfinished
	for _, size := range d.layers {
		d.total += size
	}
	for _, size := range d.blobs {
		d.total += size
	}
	return d, nil
}

// holding is what one image keeps on disk.
type holding struct{ layers, blobs map[digest.Digest]bool }

func newHolding() holding {
	return holding{layers: map[digest.Digest]bool{}, blobs: map[digest.Digest]bool{}}
}

// holdings is what belongs to each image. What is kept of an index belongs to
// the image that its names mean, as that is the one people see.
func (m *Manager) holdings() map[digest.Digest]holding {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make(map[digest.Digest]holding, len(m.byID))
	for id, e := range m.byID {
		h := newHolding()
		h.blobs[e.id], h.blobs[e.Manifest.Digest] = true, true
		for _, l := range e.Layers {
			h.blobs[l.Blob.Digest], h.layers[l.DiffID] = true, true
		}
		all[id] = h
	}
	for _, ref := range m.byRef {
		if h, ok := all[ref.ID]; ok {
			h.blobs[ref.Target.Digest] = true
		}
	}
	for _, rec := range m.byIndex {
		h, ok := all[rec.main()]
		if !ok {
			continue
		}
		rec.eachBlob(func(d digest.Digest) { h.blobs[d] = true })
		for _, id := range rec.images() {
			h.add(all[id])
		}
	}
	return all
}

// size is what the holding takes, and how much of that others have as well.
// owners may be nil.
func (h holding) size(d *disk, owners *owners) (total, shared int64) {
	for key := range h.layers {
		total += d.layers[key]
		if owners != nil && owners.layers[key] > 1 {
			shared += d.layers[key]
		}
	}
	for key := range h.blobs {
		total += d.blobs[key]
		if owners != nil && owners.blobs[key] > 1 {
			shared += d.blobs[key]
		}
	}
	return total, shared
}

// owners counts how many images have each layer and blob. An uncompressed blob
// has the digest of its layer, and is another thing all the same.
type owners struct{ layers, blobs map[digest.Digest]int }

func (o *owners) add(h holding) {
	for key := range h.layers {
		o.layers[key]++
	}
	for key := range h.blobs {
		o.blobs[key]++
	}
}

// Usage adds up what images take on disk.
func (m *Manager) Usage(ctx context.Context) (*Usage, error) {
	list, err := m.List(ctx, ListOptions{Filters: filter.Args{}})
	if err != nil {
		return nil, err
	}
	d, err := m.measure(ctx)
	if err != nil {
		return nil, err
	}
	holdings := m.holdings()
	u := &Usage{Total: d.total, Images: list}
	all := &owners{layers: map[digest.Digest]int{}, blobs: map[digest.Digest]int{}}
	used := newHolding()
	for i := range list {
		all.add(holdings[digest.Digest(list[i].ID)])
	}
	for id, h := range holdings {
		if len(m.opts.InUse(id)) > 0 {
			used.add(h)
		}
	}
	for _, diffID := range m.opts.LayersInUse() {
		used.layers[diffID] = true
	}
	needed, _ := used.size(d, nil)
	u.Reclaimable = d.total - d.overhead() - needed
	for i := range list {
		s := &u.Images[i]
		h := holdings[digest.Digest(s.ID)]
		s.Size, s.SharedSize = h.size(d, all)
		if s.Containers = int64(len(m.opts.InUse(digest.Digest(s.ID)))); s.Containers > 0 {
			u.Active++
		}
	}
	return u, nil
}

func (h holding) add(more holding) {
	for key := range more.layers {
		h.layers[key] = true
	}
	for key := range more.blobs {
		h.blobs[key] = true
	}
}

// without is what is in d and not in later any more, but for what was unfinished.
func (d *disk) without(later *disk) (gone int64) {
	for key, size := range d.layers {
		if _, kept := later.layers[key]; !kept {
			gone += size
		}
	}
	for key, size := range d.blobs {
		if _, kept := later.blobs[key]; !kept {
			gone += size
		}
	}
	return gone
}

// overhead is what stays when there is no image: the directories.
func (d *disk) overhead() int64 {
	rest := d.total - d.unfinished
	for _, sizes := range []map[digest.Digest]int64{d.layers, d.blobs} {
		for _, size := range sizes {
			rest -= size
		}
	}
	return rest
}
