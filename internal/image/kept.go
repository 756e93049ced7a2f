package image

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

// kept tells what a reference stands for, and which of its manifests are here:
// of one image that is one. It fails as Resolve does.
func (m *Manager) kept(ref string) (ocispec.Descriptor, []keptManifest, error) {
	e, desc, err := m.findTarget(ref)
	if err != nil {
		return desc, nil, err
	}
	m.mu.RLock()
	rec := m.byIndex[desc.Digest]
	m.mu.RUnlock()
	if rec != nil {
		return desc, rec.Kept, nil
	}
	config, err := e.config()
	if err != nil {
		return desc, nil, err
	}
	k := keptManifest{Descriptor: desc, ID: e.id, Platform: platformOf(config)}
	manifest, _, err := m.manifest(desc.Digest)
	if err != nil {
		return desc, nil, err
	}
	for _, d := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		if _, err := m.opts.Content.Stat(d.Digest); err == nil {
			k.Blobs = append(k.Blobs, d)
		}
	}
	return desc, []keptManifest{k}, nil
}

// manifest reads an image's manifest from the store.
func (m *Manager) manifest(dgst digest.Digest) (*ocispec.Manifest, []byte, error) {
	data, err := m.opts.Content.ReadAll(dgst, registry.MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	manifest, err := parseManifest(data)
	return manifest, data, err
}

// whole tells whether all that the target consists of is here, byte for byte.
func (m *Manager) whole(ctx context.Context, desc ocispec.Descriptor, kept []keptManifest) (bool, error) {
	if !isIndex(desc.MediaType) {
		return true, nil
	}
	have := map[digest.Digest]keptManifest{}
	for _, k := range kept {
		have[k.Descriptor.Digest] = k
	}
	all := true
	err := m.walkIndex(ctx, desc, func(d ocispec.Descriptor) error {
		k, ok := have[d.Digest]
		all = all && ok
		if ok && k.ID != "" {
			manifest, _, err := m.manifest(d.Digest)
			if err != nil {
				return err
			}
			all = all && len(missingBlobs(manifest, k)) == 0
		}
		return nil
	})
	return all, err
}

// outgoing is a manifest on its way out, to an archive or a registry.
type outgoing struct {
	desc   ocispec.Descriptor   // as its index has it
	data   []byte               // of the manifest
	blobs  []ocispec.Descriptor // that go before it
	layers []ocispec.Descriptor // those of them that are layers of an image

	image    *entry // nil for what is none
	platform ocispec.Platform
}

// outgoing is a manifest as it is kept, unless a layer's blob is another one
// than it names: then it is one written to name what there is.
func (m *Manager) outgoing(k keptManifest) (*outgoing, error) {
	out := &outgoing{desc: k.Descriptor, blobs: k.Blobs, platform: k.Platform}
	data, err := m.opts.Content.ReadAll(k.Descriptor.Digest, registry.MaxManifest)
	if err != nil {
		return nil, err
	}
	out.data = data
	if k.ID == "" {
		return out, nil
	}
	m.mu.RLock()
	out.image = m.byID[k.ID]
	m.mu.RUnlock()
	if out.image == nil {
		return nil, errs.NotFound("No such image: %s", k.ID)
	}
	manifest, err := parseManifest(data)
	if err != nil {
		return nil, err
	}
	out.layers = manifest.Layers
	if len(missingBlobs(manifest, k)) == 0 {
		return out, nil
	}
	return out, out.rewrite(manifest)
}

func (out *outgoing) rewrite(old *ocispec.Manifest) (err error) {
	manifest := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Config:      ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: out.image.id, Size: old.Config.Size},
		Layers:      []ocispec.Descriptor{},
		Annotations: old.Annotations,
	}
	out.blobs = []ocispec.Descriptor{manifest.Config}
	for _, l := range out.image.Layers {
		d := ocispec.Descriptor{MediaType: ociLayerType(l.Blob.MediaType), Digest: l.Blob.Digest, Size: l.Blob.Size}
		manifest.Layers, out.blobs = append(manifest.Layers, d), append(out.blobs, d)
	}
	out.layers = manifest.Layers
	if out.data, err = json.Marshal(manifest); err != nil {
		return err
	}
	out.desc.MediaType = manifest.MediaType
	out.desc.Digest, out.desc.Size = digest.FromBytes(out.data), int64(len(out.data))
	return nil
}

// missingBlobs are those a manifest names that are not kept for it.
func missingBlobs(manifest *ocispec.Manifest, k keptManifest) (missing []ocispec.Descriptor) {
	for _, d := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		if !slices.ContainsFunc(k.Blobs, func(b ocispec.Descriptor) bool { return b.Digest == d.Digest }) {
			missing = append(missing, d)
		}
	}
	return missing
}

// ociLayerType is the OCI name of a layer's media type, which is the only one
// an OCI manifest may use.
func ociLayerType(mediaType string) string {
	switch mediaType {
	case mediaDockerLayer:
		return ocispec.MediaTypeImageLayer
	case mediaDockerLayerGzip, mediaDockerForeign:
		return ocispec.MediaTypeImageLayerGzip
	case mediaDockerLayerZstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return mediaType
}
