package image

import (
	"context"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-containers/gantry/internal/errs"
)

// source is where an image comes from: its manifest, and a way to its blobs.
type source struct {
	manifest ocispec.Descriptor
	data     []byte // of the manifest
	open     opener
	parallel int
	want     *ocispec.Platform // what was asked for; nil is anything
	// whole keeps every blob the manifest names, also where another one has
	// the same layer.
	whole bool
	// packed leaves the layers as blobs, until a container needs them. What
	// is not for this host is always left so.
	packed bool
	made   bool // the manifest was written here
	watch  func(ocispec.Descriptor) func(step)
}

// taken is an image that was brought in.
type taken struct {
	entry    *entry
	fresh    bool                 // it is new
	blobs    []ocispec.Descriptor // those of the manifest that are here
	platform ocispec.Platform
}

// take brings an image in by its manifest and records it.
func (m *Manager) take(ctx context.Context, in *ingest, src source) (*taken, error) {
	manifest, err := parseManifest(src.data)
	if err != nil {
		return nil, err
	}
	if err := in.putManifest(ctx, src.manifest, src.data); err != nil {
		return nil, err
	}
	config, err := m.takeConfig(ctx, in, src, manifest.Config)
	if err != nil {
		return nil, err
	}
	if err := checkLayers(&config.RootFS, manifest.Layers); err != nil {
		return nil, err
	}
	tk := &taken{platform: platformOf(config)}
	src.packed = src.packed || !forHost(tk.platform)
	layers, err := m.takeLayers(ctx, in, src, config.RootFS.DiffIDs, manifest.Layers)
	if err != nil {
		return nil, err
	}
	for _, d := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		if in.adopt(d.Digest) {
			tk.blobs = append(tk.blobs, bare(d))
		}
	}
	tk.entry, tk.fresh, err = m.register(in, manifest.Config.Digest, record{Manifest: bare(src.manifest), Layers: layers, Made: src.made})
	return tk, err
}

// forHost tells whether what is for the platform runs on this host.
func forHost(p ocispec.Platform) bool { return rank(HostPlatform(), p) >= 0 }

// takeConfig stores an image's configuration and checks that it can be used.
func (m *Manager) takeConfig(ctx context.Context, in *ingest, src source, desc ocispec.Descriptor) (*dockerspec.DockerOCIImage, error) {
	if _, err := m.blob(ctx, in, desc, src.open, func(step) {}); err != nil {
		return nil, err
	}
	data, err := m.opts.Content.ReadAll(desc.Digest, maxConfig)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	have := platformOf(config)
	if have.OS != "linux" {
		return nil, errs.InvalidArgument("cannot use an image for operating system %q on linux", have.OS)
	}
	if src.want != nil && rank(*src.want, have) < 0 {
		return nil, errs.NotFound("the image is for %s, not for %s", FormatPlatform(have), FormatPlatform(*src.want))
	}
	return config, nil
}

// takeLayers brings the layers in, several at once.
func (m *Manager) takeLayers(ctx context.Context, in *ingest, src source, diffIDs []digest.Digest, blobs []ocispec.Descriptor) ([]layerRecord, error) {
	watchers := make([]func(step), len(blobs))
	for i, desc := range blobs {
		watchers[i] = src.watch(desc)
		watchers[i](step{status: stepWaiting})
	}
	layers := make([]layerRecord, len(blobs))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(max(1, src.parallel))
	for i := range blobs {
		eg.Go(func() (err error) {
			layers[i], err = m.takeLayer(ctx, in, src, diffIDs[i], blobs[i], watchers[i])
			return err
		})
	}
	return layers, eg.Wait()
}

// takeLayer brings one layer in.
func (m *Manager) takeLayer(ctx context.Context, in *ingest, src source, diffID digest.Digest, desc ocispec.Descriptor, watch func(step)) (layerRecord, error) {
	l, known := m.known(in, diffID, desc)
	switch {
	case known && (!src.whole || l.Blob.Digest == desc.Digest):
		watch(step{status: stepExists})
		return l, nil
	case known:
		_, err := m.blob(ctx, in, desc, src.open, watch)
		return l, err
	case src.packed:
		return m.packedLayer(ctx, in, diffID, desc, src.open, watch)
	}
	return m.layer(ctx, in, diffID, desc, src.open, watch)
}

// register records an image whose blobs and layers are there and pinned. The
// record of an image that is known already stays, and is pinned instead, unless
// this one has layers unpacked that were not.
func (m *Manager) register(in *ingest, id digest.Digest, rec record) (*entry, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec.Added = time.Now().UTC()
	had := m.byID[id]
	if had != nil {
		in.pinEntry(had)
		if !had.packed() || rec.packed() {
			return had, false, nil
		}
		rec.Manifest, rec.Parent, rec.Added, rec.Made = had.Manifest, had.Parent, had.Added, had.Made
	}
	if err := m.images.Put(id.String(), &rec); err != nil {
		return nil, false, err
	}
	e := m.newEntry(id, rec)
	m.byID[id] = e
	m.tellArrival()
	return e, had == nil, nil
}

// forget deletes the records of images that came in and were given no name. Who
// else is bringing one in records it again when naming it.
func (m *Manager) forget(list []*entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range list {
		if len(m.references(e.id)) > 0 || m.byID[e.id] == nil {
			continue
		}
		if m.images.Delete(e.id.String()) == nil {
			delete(m.byID, e.id)
		}
	}
}
