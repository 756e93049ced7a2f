package image

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

// indexSource is where an index and all that it lists come from.
type indexSource struct {
	desc ocispec.Descriptor
	data []byte
	get  getter
	// image is how an image of the index is taken, but for its manifest.
	image source
	// want are the platforms to take; empty takes everything there is.
	want []ocispec.Platform
	// partial says that what cannot be found is left out.
	partial bool
}

// indexTaker brings an index in.
type indexTaker struct {
	m     *Manager
	in    *ingest
	src   indexSource
	had   *indexRecord // what was here before
	rec   *indexRecord
	to    *target
	fresh bool                   // something new came
	news  []*entry               // images that were not here before
	bytes getter                 // of a manifest, which is stored then
	path  map[digest.Digest]bool // the indexes above
	seen  map[digest.Digest]bool
}

// takeIndex brings in what is wanted of an index, and the index. It tells
// whether anything of it is new.
func (m *Manager) takeIndex(ctx context.Context, in *ingest, src indexSource) (*target, bool, error) {
	tk := &indexTaker{m: m, in: in, src: src,
		rec:  &indexRecord{Target: bare(src.desc)},
		path: map[digest.Digest]bool{}, seen: map[digest.Digest]bool{}}
	tk.bytes = tk.stored
	tk.to = &target{desc: tk.rec.Target, index: tk.rec, entries: map[digest.Digest]*entry{}}
	m.mu.RLock()
	tk.had = m.byIndex[src.desc.Digest]
	for _, id := range tk.had.images() {
		in.pinEntry(m.byID[id])
	}
	in.pinIndex(tk.had)
	m.mu.RUnlock()
	if err := in.putManifest(ctx, src.desc, src.data); err != nil {
		return nil, false, err
	}
	if err := tk.take(ctx); err != nil {
		m.forget(tk.news)
		return nil, false, err
	}
	if len(tk.rec.images()) == 0 {
		return nil, false, errs.InvalidArgument("image index %s has no image that can be used", src.desc.Digest)
	}
	return tk.to, tk.fresh || tk.had == nil, nil
}

func (tk *indexTaker) take(ctx context.Context) error {
	if len(tk.src.want) == 0 {
		return tk.all(ctx, tk.src.desc, tk.src.data)
	}
	var missing error
	for _, want := range tk.src.want {
		err := tk.one(ctx, want)
		if errors.Is(err, errdefs.ErrNotFound) && tk.src.partial {
			missing = err
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(tk.rec.images()) == 0 && missing != nil {
		return missing
	}
	return nil
}

// one takes the image that suits a platform best.
func (tk *indexTaker) one(ctx context.Context, want ocispec.Platform) error {
	var above []ocispec.Descriptor
	desc, data, err := descend(ctx, tk.src.desc, tk.src.data, forPlatform(want),
		func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
			data, err := tk.bytes(ctx, d)
			if err == nil && isIndex(d.MediaType) {
				above = append(above, d)
			}
			return data, err
		})
	if err != nil {
		return err
	}
	if err := tk.child(ctx, desc, data, false); err != nil {
		return err
	}
	for i := len(above) - 1; i >= 0; i-- {
		tk.keep(keptManifest{Descriptor: above[i]})
	}
	return nil
}

// all takes everything an index lists, those within it included.
func (tk *indexTaker) all(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	index, err := parseIndex(data)
	if err != nil {
		return err
	}
	if tk.path[desc.Digest] {
		return errs.InvalidArgument("image index %s refers to itself", desc.Digest)
	}
	if len(tk.path) == maxDepth {
		return errs.InvalidArgument("image indexes are nested more than %d deep", maxDepth)
	}
	tk.path[desc.Digest] = true
	defer delete(tk.path, desc.Digest)
	for _, d := range index.Manifests {
		if tk.path[d.Digest] {
			return errs.InvalidArgument("image index %s refers to itself", d.Digest)
		}
		if tk.seen[d.Digest] {
			continue
		}
		tk.seen[d.Digest] = true
		if len(tk.seen) > maxManifests {
			return errs.InvalidArgument("image index %s leads to more than %d manifests", tk.src.desc.Digest, maxManifests)
		}
		data, err := tk.bytes(ctx, d)
		if errors.Is(err, errdefs.ErrNotFound) && tk.src.partial {
			continue
		}
		if err != nil {
			return err
		}
		if err := tk.child(ctx, d, data, true); err != nil {
			return err
		}
	}
	return nil
}

// stored gets a manifest and stores it.
func (tk *indexTaker) stored(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > registry.MaxManifest {
		return nil, errs.InvalidArgument("manifest %s is larger than %d MiB", d.Digest, registry.MaxManifest>>20)
	}
	if tk.in.adopt(d.Digest) {
		data, err := tk.m.opts.Content.ReadAll(d.Digest, registry.MaxManifest)
		if err == nil && d.Size != int64(len(data)) {
			err = wrongManifestSize(d, len(data))
		}
		return data, err
	}
	data, err := tk.src.get(ctx, d)
	if err != nil {
		return nil, err
	}
	return data, tk.in.putManifest(ctx, d, data)
}

func wrongManifestSize(d ocispec.Descriptor, got int) error {
	return errs.InvalidArgument("manifest %s has %d bytes where the index says %d", d.Digest, got, d.Size)
}

// child takes one manifest of the index: an image, or with everything also what
// is none.
func (tk *indexTaker) child(ctx context.Context, d ocispec.Descriptor, data []byte, everything bool) error {
	kind, err := kindOf(d.MediaType, data)
	if err == nil && isIndex(kind) && everything {
		if err := tk.all(ctx, d, data); err != nil {
			return err
		}
		tk.keep(keptManifest{Descriptor: d})
		return nil
	}
	if everything && (err != nil || isAttestation(d) || foreign(d) || !isImage(kind, data)) {
		return tk.artifact(ctx, d, data)
	}
	src := tk.src.image
	src.manifest, src.data = d, data
	if err == nil {
		src.manifest.MediaType = kind
	}
	// Of everything only what is for this host is made ready at once.
	src.whole = everything
	src.packed = everything && !tk.forHost(d)
	if had := tk.hadImage(d, src); had != nil {
		tk.keep(*had)
		return nil
	}
	taken, err := tk.m.take(ctx, tk.in, src)
	if errors.Is(err, errdefs.ErrNotFound) && tk.src.partial && everything {
		return nil
	}
	if err != nil {
		return err
	}
	k := keptManifest{Descriptor: d, ID: taken.entry.id, Blobs: taken.blobs, Platform: taken.platform}
	if d.Platform != nil {
		k.Platform = *d.Platform
	}
	tk.to.entries[taken.entry.id] = taken.entry
	if taken.fresh {
		tk.news = append(tk.news, taken.entry)
	}
	tk.keep(k)
	tk.fresh = tk.fresh || tk.had.find(d.Digest) == nil
	return nil
}

// forHost tells whether the manifest is what this host would choose.
func (tk *indexTaker) forHost(d ocispec.Descriptor) bool {
	index, err := parseIndex(tk.src.data)
	if err != nil {
		return false
	}
	best, ok := choose(index, HostPlatform())
	return ok && best.Digest == d.Digest
}

// hadImage returns what is kept of an image already, when that is all.
func (tk *indexTaker) hadImage(d ocispec.Descriptor, src source) *keptManifest {
	k := tk.had.find(d.Digest)
	if k == nil || k.ID == "" {
		return nil
	}
	if src.whole {
		manifest, err := parseManifest(src.data)
		if err != nil || len(missingBlobs(manifest, *k)) > 0 {
			return nil
		}
	}
	tk.m.mu.RLock()
	defer tk.m.mu.RUnlock()
	e := tk.m.byID[k.ID]
	if e == nil {
		return nil
	}
	tk.in.pinEntry(e)
	tk.to.entries[k.ID] = e
	return k
}

func (tk *indexTaker) keep(k keptManifest) {
	if tk.rec.find(k.Descriptor.Digest) == nil {
		tk.rec.Kept = append(tk.rec.Kept, k)
	}
}

// foreign tells of an image that no Linux can run.
func foreign(d ocispec.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS != "" && d.Platform.OS != "linux"
}

// isImage tells whether a document is the manifest of a container image.
func isImage(kind string, data []byte) bool {
	if !isManifest(kind) {
		return false
	}
	_, err := parseManifest(data)
	return err == nil
}

// artifact keeps what is no image as it is: the blobs it names, whatever they
// are.
func (tk *indexTaker) artifact(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	k := keptManifest{Descriptor: d}
	if had := tk.had.find(d.Digest); had != nil {
		tk.keep(*had)
		return nil
	}
	for _, blob := range blobsOf(data) {
		_, err := tk.m.blob(ctx, tk.in, blob, tk.src.image.open, tk.src.image.watch(blob))
		if errors.Is(err, errdefs.ErrNotFound) && (tk.src.partial || isForeignLayer(blob.MediaType)) {
			continue
		}
		if err != nil {
			return err
		}
		k.Blobs = append(k.Blobs, blob)
	}
	tk.fresh = true
	tk.keep(k)
	return nil
}

// blobsOf lists what a manifest of any kind names: its configuration and its
// layers, or the blobs of what was the artifact manifest. What does not look
// like a blob is left out: nobody could fetch it.
func blobsOf(data []byte) (blobs []ocispec.Descriptor) {
	var doc struct {
		Config *ocispec.Descriptor  `json:"config"`
		Layers []ocispec.Descriptor `json:"layers"`
		Blobs  []ocispec.Descriptor `json:"blobs"`
	}
	if json.Unmarshal(data, &doc) != nil {
		return nil
	}
	if doc.Config != nil {
		blobs = append(blobs, *doc.Config)
	}
	all := append(append(blobs, doc.Layers...), doc.Blobs...)
	blobs = nil
	for _, d := range all {
		if checkDescriptor("blob", d) == nil && len(blobs) < maxLayers {
			blobs = append(blobs, bare(d))
		}
	}
	return blobs
}
