package image

import (
	"context"
	"io"
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
	watch    func(ocispec.Descriptor) func(step)
}

// take brings an image in by its manifest and records it. It returns the entry,
// and whether the image is new.
func (m *Manager) take(ctx context.Context, in *ingest, src source) (*entry, bool, error) {
	manifest, err := parseManifest(src.data)
	if err != nil {
		return nil, false, err
	}
	if _, err := in.putBytes(ctx, src.data); err != nil {
		return nil, false, err
	}
	config, err := m.takeConfig(ctx, in, src, manifest.Config)
	if err != nil {
		return nil, false, err
	}
	if err := checkLayers(&config.RootFS, manifest.Layers); err != nil {
		return nil, false, err
	}
	layers, err := m.takeLayers(ctx, in, src, config.RootFS.DiffIDs, manifest.Layers)
	if err != nil {
		return nil, false, err
	}
	return m.register(in, manifest.Config.Digest, record{Manifest: src.manifest, Layers: layers})
}

// takeConfig stores an image's configuration and checks that it can be used.
func (m *Manager) takeConfig(ctx context.Context, in *ingest, src source, desc ocispec.Descriptor) (*dockerspec.DockerOCIImage, error) {
	if !in.adopt(desc.Digest) {
		r, err := src.open(ctx, desc)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		if _, _, err := in.put(ctx, r, desc.Digest, desc.Size); err != nil {
			return nil, err
		}
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
			layers[i], err = m.layer(ctx, in, diffIDs[i], blobs[i], src.open, watchers[i])
			return err
		})
	}
	return layers, eg.Wait()
}

// register records an image whose blobs and layers are there and pinned. The
// record of an image that is known already stays, and is pinned instead.
func (m *Manager) register(in *ingest, id digest.Digest, rec record) (*entry, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.byID[id]; e != nil {
		in.pinEntry(e)
		return e, false, nil
	}
	rec.Added = time.Now().UTC()
	if err := m.images.Put(id.String(), &rec); err != nil {
		return nil, false, err
	}
	e := m.newEntry(id, rec)
	m.byID[id] = e
	return e, true, nil
}

// readAll reads a small blob from where an image comes from.
func readAll(ctx context.Context, open opener, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	r, err := open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, errs.InvalidArgument("blob %s is larger than the %d bytes it may have", desc.Digest, limit)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, errs.InvalidArgument("the content of blob %s has digest %s", desc.Digest, got)
	}
	return data, nil
}
