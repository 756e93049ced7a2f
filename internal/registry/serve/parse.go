package serve

import (
	"encoding/json"
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Docker's media types (Docker Image Manifest V2, schemas 1 and 2).
const (
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList      = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1   = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSigned1   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerForeign   = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociForeign      = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	artifactOfRC    = "application/vnd.oci.artifact.manifest.v1+json"
	maxDescriptors  = 100_000
	maxMediaType    = 255 // RFC 6838, section 4.2: 127 for each half
	maxShownOfMedia = 80
)

// document is what a manifest or an index has that the registry must know.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
	FSLayers      json.RawMessage      `json:"fsLayers"` // only of schema 1
}

// parseManifest reads a manifest that came as the Content-Type says. Digest,
// time and user are the caller's to fill in.
func parseManifest(contentType string, body []byte) (depot.Manifest, error) {
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		return depot.Manifest{}, errs.InvalidArgument("the manifest is no JSON document of its kind: %v", err)
	}
	mediaType, err := d.kind(contentType)
	if err != nil {
		return depot.Manifest{}, err
	}
	m := depot.Manifest{MediaType: mediaType, Size: int64(len(body)), ArtifactType: d.ArtifactType, Annotations: d.Annotations}
	if len(d.Layers)+len(d.Manifests) > maxDescriptors {
		return m, errs.InvalidArgument("the manifest names more than %d things", maxDescriptors)
	}
	switch mediaType {
	case ocispec.MediaTypeImageManifest, dockerManifest:
		err = d.image(&m)
	default:
		err = d.index(&m)
	}
	if err != nil {
		return m, err
	}
	if d.Subject != nil {
		if err := check("subject", d.Subject); err != nil {
			return m, err
		}
		m.Subject = d.Subject.Digest
	}
	return m, nil
}

// kind decides what the document is. Parameters of the Content-Type are
// ignored, as the specification says.
func (d *document) kind(contentType string) (string, error) {
	said := ""
	if contentType != "" {
		parsed, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return "", errs.InvalidArgument("Content-Type %q is no media type", clip(contentType))
		}
		said = parsed
	}
	if said == dockerSchema1 || said == dockerSigned1 || d.SchemaVersion == 1 || len(d.FSLayers) > 0 {
		return "", errs.InvalidArgument("this is a manifest of Docker's schema 1, which went out of use in 2017 and is not kept here: push it with a newer client, or convert it with skopeo copy --format=oci")
	}
	if d.SchemaVersion != 2 {
		return "", errs.InvalidArgument("the manifest has schemaVersion %d, not 2", d.SchemaVersion)
	}
	if said == "" || said == "application/json" || said == octets {
		said = d.guess()
	}
	switch said {
	case ocispec.MediaTypeImageManifest, dockerManifest, ocispec.MediaTypeImageIndex, dockerList:
	case artifactOfRC:
		return "", errs.InvalidArgument("%s was in a draft of the OCI specification and not in the released one: use an image manifest with an artifactType", said)
	default:
		return "", errs.InvalidArgument("%q is no manifest this registry knows: OCI image manifests and indexes, and Docker's of schema 2, are", clip(said))
	}
	if d.MediaType != "" && d.MediaType != said {
		return "", errs.InvalidArgument("the manifest says it is %q, its Content-Type says %q", clip(d.MediaType), clip(said))
	}
	return said, nil
}

// guess is for a push without a Content-Type.
func (d *document) guess() string {
	switch {
	case d.MediaType != "":
		return d.MediaType
	case d.Config == nil && d.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

func clip(s string) string {
	if len(s) > maxShownOfMedia {
		return s[:maxShownOfMedia] + "…"
	}
	return s
}

// image takes in what an image manifest names.
func (d *document) image(m *depot.Manifest) error {
	if d.Config == nil {
		return errs.InvalidArgument("the manifest has no config")
	}
	if d.Manifests != nil {
		return errs.InvalidArgument("the manifest of an image has a list of manifests: a client could take it for an index")
	}
	if err := check("config", d.Config); err != nil {
		return err
	}
	m.Config, m.Blobs = d.Config.Digest, append(m.Blobs, d.Config.Digest)
	if m.ArtifactType == "" {
		m.ArtifactType = d.Config.MediaType
	}
	for i := range d.Layers {
		layer := &d.Layers[i]
		if err := check("layer", layer); err != nil {
			return err
		}
		if elsewhere(layer) {
			m.Optional = append(m.Optional, layer.Digest)
			continue
		}
		m.Blobs = append(m.Blobs, layer.Digest)
	}
	return nil
}

// elsewhere tells whether a layer may be left out of the registry: it is of a
// type that must not be distributed, and says where else it is.
func elsewhere(d *ocispec.Descriptor) bool {
	return len(d.URLs) > 0 || strings.HasPrefix(d.MediaType, ociForeign) || strings.HasPrefix(d.MediaType, dockerForeign)
}

// index takes in what an index names.
func (d *document) index(m *depot.Manifest) error {
	if d.Config != nil || d.Layers != nil {
		return errs.InvalidArgument("the index has a config or layers: a client could take it for the manifest of an image")
	}
	for i := range d.Manifests {
		if err := check("manifest", &d.Manifests[i]); err != nil {
			return err
		}
		m.Manifests = append(m.Manifests, d.Manifests[i].Digest)
	}
	return nil
}

// check looks at one descriptor. A digest of an algorithm that is not known
// here could never be found.
func check(what string, d *ocispec.Descriptor) error {
	if err := depot.CheckDigest(digest.Digest(d.Digest)); err != nil {
		return errs.InvalidArgument("the %s of the manifest cannot be: %w", what, err)
	}
	if d.Size < 0 {
		return errs.InvalidArgument("the %s %s of the manifest has the size %d", what, d.Digest, d.Size)
	}
	if len(d.MediaType) > maxMediaType {
		return errs.InvalidArgument("the %s %s of the manifest has a media type of %d characters", what, d.Digest, len(d.MediaType))
	}
	return nil
}
