package image

import (
	"encoding/json"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

const (
	maxConfig = 8 << 20 // bytes of a configuration
	maxLayers = 1024    // of one image; more than any kernel mounts
)

// Media types of Docker's layers, besides those of the OCI image specification.
const (
	mediaDockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	mediaDockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	mediaDockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	mediaDockerForeign      = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	mediaOCIForeignTar      = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	mediaOCIForeignTarGzip  = mediaOCIForeignTar + "+gzip"
	mediaOCIForeignTarZstd  = mediaOCIForeignTar + "+zstd"
	annotationContainerd    = "io.containerd.image.name"
	annotationReferenceType = "vnd.docker.reference.type"
	// annotationReferenceDigest names the manifest an attestation is about.
	annotationReferenceDigest = "vnd.docker.reference.digest"
)

// isIndex tells whether a media type is that of a list of manifests.
func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == registry.MediaTypeDockerList
}

// isManifest tells whether a media type is that of one image.
func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == registry.MediaTypeDockerManifest
}

func isSchema1(mediaType string) bool {
	return mediaType == registry.MediaTypeDockerSchema1 || mediaType == registry.MediaTypeDockerSigned1
}

func isLayer(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		mediaDockerLayer, mediaDockerLayerGzip, mediaDockerLayerZstd, mediaDockerForeign,
		mediaOCIForeignTar, mediaOCIForeignTarGzip, mediaOCIForeignTarZstd:
		return true
	}
	return false
}

// isForeignLayer tells of layers that registries need not have: they were to be
// had from elsewhere only.
func isForeignLayer(mediaType string) bool {
	switch mediaType {
	case mediaDockerForeign, mediaOCIForeignTar, mediaOCIForeignTarGzip, mediaOCIForeignTarZstd:
		return true
	}
	return false
}

// kindOf finds out what a JSON document is. The media type it came under may be
// missing or a generic one; the document's own word and shape decide then.
func kindOf(mediaType string, data []byte) (string, error) {
	if isIndex(mediaType) || isManifest(mediaType) || isSchema1(mediaType) {
		return mediaType, nil
	}
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", errs.InvalidArgument("a manifest is not JSON: %w", err)
	}
	switch {
	case isIndex(doc.MediaType) || isManifest(doc.MediaType) || isSchema1(doc.MediaType):
		return doc.MediaType, nil
	case doc.MediaType != "":
		return "", errs.InvalidArgument("unknown media type %q of a manifest", doc.MediaType)
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case doc.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	case doc.SchemaVersion == 1 || doc.FSLayers != nil:
		return registry.MediaTypeDockerSchema1, nil
	}
	return "", errs.InvalidArgument("unknown media type %q of a manifest", mediaType)
}

// checkDescriptor refuses what nothing could be fetched by.
func checkDescriptor(what string, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return errs.InvalidArgument("a manifest names its %s by the digest %q: %w", what, d.Digest, err)
	}
	if d.Size < 0 {
		return errs.InvalidArgument("a manifest says its %s %s has %d bytes", what, d.Digest, d.Size)
	}
	return nil
}

// parseIndex reads an OCI image index or a Docker manifest list.
func parseIndex(data []byte) (*ocispec.Index, error) {
	index := &ocispec.Index{}
	if err := json.Unmarshal(data, index); err != nil {
		return nil, errs.InvalidArgument("an image index is not what it says: %w", err)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor("manifest", d); err != nil {
			return nil, err
		}
	}
	return index, nil
}

// parseManifest reads the manifest of one image, OCI or Docker schema 2, and
// refuses what is a manifest of something else.
func parseManifest(data []byte) (*ocispec.Manifest, error) {
	manifest := &ocispec.Manifest{}
	if err := json.Unmarshal(data, manifest); err != nil {
		return nil, errs.InvalidArgument("an image manifest is not what it says: %w", err)
	}
	if t := manifest.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerspec.DockerOCIImageMediaType {
		return nil, errs.InvalidArgument("the manifest is not of a container image: its configuration has the media type %q", t)
	}
	if err := checkDescriptor("configuration", manifest.Config); err != nil {
		return nil, err
	}
	if manifest.Config.Size > maxConfig {
		return nil, errs.InvalidArgument("the image's configuration is larger than %d MiB", maxConfig>>20)
	}
	if len(manifest.Layers) > maxLayers {
		return nil, errs.InvalidArgument("the image has %d layers; at most %d can be", len(manifest.Layers), maxLayers)
	}
	for _, d := range manifest.Layers {
		if err := checkDescriptor("layer", d); err != nil {
			return nil, err
		}
		if !isLayer(d.MediaType) {
			return nil, errs.InvalidArgument("layer %s has the unknown media type %q", d.Digest, d.MediaType)
		}
	}
	return manifest, nil
}

// parseConfig reads an image's configuration and checks the part of it that
// the engine builds on.
func parseConfig(data []byte) (*dockerspec.DockerOCIImage, error) {
	config := &dockerspec.DockerOCIImage{}
	if err := json.Unmarshal(data, config); err != nil {
		return nil, errs.InvalidArgument("an image's configuration is not what it says: %w", err)
	}
	if config.RootFS.Type != "layers" {
		return nil, errs.InvalidArgument("an image's configuration has a root filesystem of the unknown type %q", config.RootFS.Type)
	}
	if len(config.RootFS.DiffIDs) > maxLayers {
		return nil, errs.InvalidArgument("the image has %d layers; at most %d can be", len(config.RootFS.DiffIDs), maxLayers)
	}
	for _, id := range config.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return nil, errs.InvalidArgument("an image's configuration names a layer %q: %w", id, err)
		}
		if id.Algorithm() != digest.SHA256 {
			return nil, errs.InvalidArgument("an image's configuration names layer %s: only sha256 is known", id)
		}
	}
	return config, nil
}

// platformOf is the platform a configuration says it is for. Where it says
// nothing, as images from before that field do, it is the host's.
func platformOf(config *dockerspec.DockerOCIImage) ocispec.Platform {
	p := config.Platform
	host := HostPlatform()
	if p.OS == "" {
		p.OS = host.OS
	}
	if p.Architecture == "" {
		p.Architecture, p.Variant = host.Architecture, host.Variant
	}
	return p
}

// isAttestation tells of a manifest in an index that is no image but tells of
// one: how it was built, what is in it.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations[annotationReferenceType] != "" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// choose picks the manifest in an index that suits the platform best. An entry
// that names no platform is taken when nothing better is there and any is set.
func choose(index *ocispec.Index, want ocispec.Platform) (ocispec.Descriptor, bool) {
	best, bestRank := ocispec.Descriptor{}, -1
	for _, d := range index.Manifests {
		if isAttestation(d) || d.MediaType != "" && !isManifest(d.MediaType) && !isIndex(d.MediaType) {
			continue
		}
		r := 1 << 10
		if d.Platform != nil {
			r = rank(want, *d.Platform)
		}
		if r >= 0 && (bestRank < 0 || r < bestRank) {
			best, bestRank = d, r
		}
	}
	return best, bestRank >= 0
}

// describePlatforms lists what an index has, for the sentence that says that
// the platform asked for is not among it.
func describePlatforms(index *ocispec.Index) string {
	var names []string
	for _, d := range index.Manifests {
		if d.Platform != nil && !isAttestation(d) && len(names) < 20 {
			names = append(names, FormatPlatform(*d.Platform))
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
