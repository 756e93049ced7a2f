package image

import (
	"context"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifests describes what an image's names stand for, as the Engine API has it
// since version 1.47: of an index all it lists, whether that is here or not.
func (m *Manager) manifests(ctx context.Context, e *entry, config *dockerspec.DockerOCIImage, keys []string) ([]image.ManifestSummary, error) {
	var records []*indexRecord
	m.mu.RLock()
	for _, key := range keys {
		rec := m.byIndex[m.byRef[key].Target.Digest]
		known := rec == nil
		for _, had := range records {
			known = known || had == rec
		}
		if !known {
			records = append(records, rec)
		}
	}
	m.mu.RUnlock()
	if len(records) == 0 {
		desc := e.Manifest
		platform := platformOf(config)
		desc.Platform = &platform
		k := &keptManifest{Descriptor: desc, ID: e.id, Platform: platform}
		for _, l := range e.Layers {
			k.Blobs = append(k.Blobs, l.Blob)
		}
		return []image.ManifestSummary{m.summarize(desc, k)}, nil
	}
	list := []image.ManifestSummary{}
	seen := map[digest.Digest]bool{}
	for _, rec := range records {
		err := m.walkIndex(ctx, rec.Target, func(d ocispec.Descriptor) error {
			if !seen[d.Digest] && !isIndex(d.MediaType) {
				seen[d.Digest] = true
				list = append(list, m.summarize(d, rec.find(d.Digest)))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// summarize describes one manifest; k is what is kept of it, nil for nothing.
func (m *Manager) summarize(d ocispec.Descriptor, k *keptManifest) image.ManifestSummary {
	s := image.ManifestSummary{ID: d.Digest.String(), Descriptor: d, Kind: image.ManifestKindUnknown}
	if k != nil {
		s.Available = true
		s.Size.Content = d.Size
		for _, blob := range k.Blobs {
			s.Size.Content += blob.Size
		}
		s.Size.Total = s.Size.Content
	}
	switch {
	case isAttestation(d):
		s.Kind = image.ManifestKindAttestation
		s.AttestationData = &image.AttestationProperties{For: digest.Digest(d.Annotations[annotationReferenceDigest])}
	case k != nil && k.ID != "":
		s.Kind = image.ManifestKindImage
		s.ImageData = &image.ImageProperties{Platform: k.Platform, Containers: []string{}}
		s.ImageData.Containers = append(s.ImageData.Containers, m.opts.InUse(k.ID)...)
		m.mu.RLock()
		if e := m.byID[k.ID]; e != nil {
			s.ImageData.Size.Unpacked = e.unpackedSize()
		}
		m.mu.RUnlock()
		s.Size.Total += s.ImageData.Size.Unpacked
	case k == nil && d.Platform != nil:
		s.Kind = image.ManifestKindImage
		s.ImageData = &image.ImageProperties{Platform: *d.Platform, Containers: []string{}}
	}
	return s
}
