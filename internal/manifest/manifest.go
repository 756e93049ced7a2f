// Package manifest is the command `manifest`: it shows manifests of registries,
// and puts those of images for several platforms together into a list under one
// name.
//
// It owns the lists that are being put together. They are kept below the
// command line's configuration directory, in Docker's layout, so that one begun
// with either client is finished with the other. It asks registries by itself,
// with the logins of the command line, and must not know the engine.
package manifest

import (
	"encoding/json"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry"
)

// image is a manifest of one platform, as it is kept in a file and shown by
// inspect -v. Of the last two fields one is set: the manifest as it came.
type image struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte          `json:",omitempty"`
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

// newImage takes the manifest of desc apart as far as it is shown.
func newImage(ref reference.Named, desc ocispec.Descriptor, body []byte) (*image, error) {
	i := &image{Ref: ref.String(), Descriptor: desc, Raw: body}
	switch desc.MediaType {
	case registry.MediaTypeDockerManifest:
		i.SchemaV2Manifest = body
	case ocispec.MediaTypeImageManifest:
		i.OCIManifest = body
	case registry.MediaTypeDockerList, ocispec.MediaTypeImageIndex:
		return nil, fmt.Errorf("%s is a manifest list", ref)
	default:
		return nil, fmt.Errorf("%s is not a manifest of an image but %s", ref, orNothing(desc.MediaType))
	}
	return i, nil
}

func orNothing(mediaType string) string {
	if mediaType == "" {
		return "of no media type"
	}
	return mediaType
}

// payload is the manifest's bytes, with the digest that is recorded for them.
func (i *image) payload() ([]byte, error) {
	candidates := [][]byte{i.Raw}
	if len(i.Raw) == 0 {
		// Older clients kept the manifest only, without its white space.
		for _, indent := range []string{"   ", "  "} {
			for _, m := range []json.RawMessage{i.SchemaV2Manifest, i.OCIManifest} {
				if m != nil {
					if text, err := json.MarshalIndent(m, "", indent); err == nil {
						candidates = append(candidates, text)
					}
				}
			}
		}
	}
	if err := i.Descriptor.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest parse of image %q failed: %w", i.Ref, err)
	}
	for _, text := range candidates {
		if i.Descriptor.Digest.Algorithm().FromBytes(text) == i.Descriptor.Digest {
			return text, nil
		}
	}
	return nil, fmt.Errorf("internal digest mismatch for %s: the manifest that is kept does not have the digest %s", i.Ref, i.Descriptor.Digest)
}

// shown is the manifest for a person to read.
func (i *image) shown() json.RawMessage {
	switch {
	case i.SchemaV2Manifest != nil:
		return i.SchemaV2Manifest
	case i.OCIManifest != nil:
		return i.OCIManifest
	}
	return i.Raw
}

// blobs are the configuration and the layers.
func (i *image) blobs() ([]ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(i.shown(), &m); err != nil {
		return nil, fmt.Errorf("cannot read the manifest of %s: %w", i.Ref, err)
	}
	return append([]ocispec.Descriptor{m.Config}, m.Layers...), nil
}

func (i *image) name() (reference.Named, error) { return reference.ParseNormalizedNamed(i.Ref) }

// list is a manifest list or index with its fields in the order that registries
// have seen from Docker: two clients that put the same list together must get
// the same digest.
type list struct {
	SchemaVersion int         `json:"schemaVersion"`
	MediaType     string      `json:"mediaType"`
	Manifests     []listEntry `json:"manifests"`
}

type listEntry struct {
	MediaType string        `json:"mediaType,omitempty"`
	Size      int64         `json:"size,omitempty"`
	Digest    digest.Digest `json:"digest,omitempty"`
	Platform  platform      `json:"platform"`
}

type platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// newList puts images of one registry together.
func newList(target reference.Named, images []*image) (*list, error) {
	l := &list{SchemaVersion: 2, MediaType: registry.MediaTypeDockerList, Manifests: []listEntry{}}
	if len(images) > 0 && images[0].Descriptor.MediaType == ocispec.MediaTypeImageManifest {
		l.MediaType = ocispec.MediaTypeImageIndex
	}
	for _, i := range images {
		name, err := i.name()
		if err != nil {
			return nil, err
		}
		if from, to := reference.Domain(name), reference.Domain(target); from != to {
			return nil, fmt.Errorf("cannot use source images from a different registry than the target image: %s != %s", from, to)
		}
		d := i.Descriptor
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("digest parse of image %q failed: %w", i.Ref, err)
		}
		e := listEntry{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest}
		if p := d.Platform; p != nil {
			e.Platform = platform{p.Architecture, p.OS, p.OSVersion, p.OSFeatures, p.Variant}
		}
		l.Manifests = append(l.Manifests, e)
	}
	return l, nil
}

func (l *list) bytes() ([]byte, error) { return json.MarshalIndent(l, "", "   ") }

// normal completes a reference with the default registry and tag.
func normal(ref string) (reference.Named, error) {
	name, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, err
	}
	if _, ok := name.(reference.Canonical); ok {
		return name, nil
	}
	return reference.TagNameOnly(name), nil
}
