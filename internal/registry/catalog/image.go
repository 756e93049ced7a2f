package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

const (
	maxConfig = 1 << 20   // bytes of a configuration that are read
	maxReadme = 512 << 10 // bytes of a README
	maxImages = 64        // manifests of an index that are shown
	maxAttach = 100       // referrers that are shown
)

// Image is what a tag or digest stands for.
type Image struct {
	Name        string            `json:"name"`
	Reference   string            `json:"reference"`
	Digest      digest.Digest     `json:"digest"`
	MediaType   string            `json:"mediaType"`
	Type        string            `json:"artifactType,omitempty"`
	Pushed      time.Time         `json:"pushed"`
	By          string            `json:"by,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Platforms has one entry for an image, and one per manifest of an index.
	Platforms []Platform `json:"platforms"`
	More      int        `json:"more,omitempty"` // manifests that are not shown
	Referrers []Referrer `json:"referrers,omitempty"`
}

// Platform is the image for one kind of machine.
type Platform struct {
	Platform string        `json:"platform,omitempty"` // as linux/arm64/v8
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"` // of its configuration and layers, as they are sent
	// Attestation says that this describes another manifest of the index.
	Attestation bool       `json:"attestation,omitempty"`
	Missing     bool       `json:"missing,omitempty"` // the index names it, and it is not here
	Created     *time.Time `json:"created,omitempty"`
	Layers      []Layer    `json:"layers"`
	History     []Step     `json:"history,omitempty"`
	Config      *Config    `json:"config,omitempty"`
}

// Layer is a layer, or the content of an artifact.
type Layer struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`
	Title     string        `json:"title,omitempty"`
}

// Step is an entry of the history.
type Step struct {
	Created   *time.Time `json:"created,omitempty"`
	CreatedBy string     `json:"createdBy,omitempty"`
	Comment   string     `json:"comment,omitempty"`
	Size      int64      `json:"size"` // of the layer it made; 0 when it made none
	Empty     bool       `json:"empty,omitempty"`
}

// Config is how containers of the image are run.
type Config struct {
	Author     string            `json:"author,omitempty"`
	User       string            `json:"user,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        []string          `json:"env,omitempty"`
	Ports      []string          `json:"ports,omitempty"`
	Volumes    []string          `json:"volumes,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Referrer is something that was attached to the image.
type Referrer struct {
	Digest digest.Digest `json:"digest"`
	Type   string        `json:"artifactType"`
	Size   int64         `json:"size"`
	Pushed time.Time     `json:"pushed"`
}

// manifest is an image manifest, an index or an artifact, OCI's or Docker's.
type manifest struct {
	Config    ocispec.Descriptor   `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// Image tells of what the reference names in the repository.
func (c *Catalog) Image(ctx context.Context, repository, reference string) (*Image, error) {
	image, err := c.look(ctx, repository, reference, true)
	if err != nil {
		return nil, err
	}
	err = depot.EachReferrer(ctx, c.depot, repository, image.Digest, "", func(r depot.Manifest) bool {
		image.Referrers = append(image.Referrers, Referrer{r.Digest, r.ArtifactType, r.Size, r.Pushed.UTC()})
		return len(image.Referrers) < maxAttach
	})
	return image, err
}

// look is Image without what refers to it. Unless whole is asked for, the
// configurations of an index's images are left out: a list of tags would read
// thousands of them.
func (c *Catalog) look(ctx context.Context, repository, reference string, whole bool) (*Image, error) {
	m, body, err := c.depot.Manifest(ctx, repository, reference)
	if err != nil {
		return nil, err
	}
	image := &Image{
		Name: repository, Reference: reference, Digest: m.Digest, MediaType: m.MediaType, Type: m.ArtifactType,
		Pushed: m.Pushed.UTC(), By: m.By, Annotations: m.Annotations, Platforms: []Platform{},
	}
	var parsed manifest
	if err := json.Unmarshal(body, &parsed); err != nil {
		return nil, errs.InvalidArgument("cannot read the manifest %s: %w", m.Digest, err)
	}
	if parsed.Manifests == nil {
		image.Platforms = append(image.Platforms, c.platform(ctx, repository, m, &parsed, true))
	}
	for i, desc := range parsed.Manifests {
		if i == maxImages {
			image.More = len(parsed.Manifests) - i
			break
		}
		image.Platforms = append(image.Platforms, c.child(ctx, repository, desc, whole))
	}
	return image, nil
}

// child is an entry of an index. One that is not here, or that lies, is shown as
// the index has it: the others are still good.
func (c *Catalog) child(ctx context.Context, repository string, desc ocispec.Descriptor, whole bool) Platform {
	var p Platform
	m, body, err := c.depot.Manifest(ctx, repository, desc.Digest.String())
	var parsed manifest
	if err != nil || json.Unmarshal(body, &parsed) != nil {
		p = Platform{Digest: desc.Digest, Layers: []Layer{}, Missing: true}
	} else {
		p = c.platform(ctx, repository, m, &parsed, whole || desc.Platform == nil)
	}
	if desc.Platform != nil {
		p.Platform = spell(*desc.Platform)
	}
	p.Attestation = desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
	return p
}

func (c *Catalog) platform(ctx context.Context, repository string, m depot.Manifest, parsed *manifest, config bool) Platform {
	p := Platform{Digest: m.Digest, Size: parsed.Config.Size, Layers: []Layer{}}
	for _, l := range parsed.Layers {
		p.Layers = append(p.Layers, Layer{l.Digest, l.MediaType, l.Size, l.Annotations[ocispec.AnnotationTitle]})
		p.Size += l.Size
	}
	if m.Config == "" || !config {
		return p
	}
	image, err := c.config(ctx, repository, m.Config)
	if err != nil {
		return p
	}
	p.Platform, p.Created, p.Config = spell(image.Platform), image.Created, configOf(image)
	p.History = history(image.History, parsed.Layers)
	return p
}

// history gives the steps that made a layer its size.
func history(steps []ocispec.History, layers []ocispec.Descriptor) []Step {
	var shown []Step
	for _, h := range steps {
		s := Step{Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment, Empty: h.EmptyLayer}
		if !h.EmptyLayer && len(layers) > 0 {
			s.Size, layers = layers[0].Size, layers[1:]
		}
		shown = append(shown, s)
	}
	return shown
}

func spell(p ocispec.Platform) string {
	if p.OS == "" && p.Architecture == "" {
		return ""
	}
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

func configOf(image *ocispec.Image) *Config {
	in := image.Config
	return &Config{
		Author: image.Author, User: in.User, WorkingDir: in.WorkingDir, Entrypoint: in.Entrypoint, Cmd: in.Cmd,
		Env: in.Env, Ports: sortedKeys(in.ExposedPorts), Volumes: sortedKeys(in.Volumes), Labels: in.Labels,
	}
}

func sortedKeys(m map[string]struct{}) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// config reads the configuration of an image.
func (c *Catalog) config(ctx context.Context, repository string, dgst digest.Digest) (*ocispec.Image, error) {
	data, err := c.read(ctx, repository, dgst, maxConfig)
	if err != nil {
		return nil, err
	}
	image := &ocispec.Image{}
	if err := json.Unmarshal(data, image); err != nil {
		return nil, errs.InvalidArgument("cannot read the configuration %s: %w", dgst, err)
	}
	return image, nil
}

// read is for small blobs.
func (c *Catalog) read(ctx context.Context, repository string, dgst digest.Digest, limit int64) ([]byte, error) {
	f, info, err := c.depot.Open(ctx, repository, dgst)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size > limit {
		return nil, errs.InvalidArgument("blob %s has %d bytes, too many to be shown", dgst, info.Size)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// Readme is the README of a repository, "" when it has none.
func (c *Catalog) Readme(ctx context.Context, repository string) (string, error) {
	if artifact := c.readmeOf(repository); artifact != "" {
		text, err := c.readmeArtifact(ctx, repository, artifact)
		if text != "" || err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return text, err
		}
	}
	reference, err := c.foremost(ctx, repository)
	if reference == "" || err != nil {
		return "", err
	}
	return c.readmeAnnotation(ctx, repository, reference)
}

// foremost is the tag that stands for the repository.
func (c *Catalog) foremost(ctx context.Context, repository string) (string, error) {
	if _, err := c.depot.Tag(ctx, repository, "latest"); err == nil {
		return "latest", nil
	}
	_, pushes, _ := c.get(repository, "")
	for _, push := range pushes {
		if _, err := c.depot.Tag(ctx, repository, push.Tag); err == nil {
			return push.Tag, nil
		}
	}
	tags, err := c.depot.Tags(ctx, repository, "", 1)
	if err != nil || len(tags) == 0 {
		return "", err
	}
	return tags[0], nil
}

func (c *Catalog) readmeArtifact(ctx context.Context, repository, reference string) (string, error) {
	_, body, err := c.depot.Manifest(ctx, repository, reference)
	if err != nil {
		return "", err
	}
	var parsed manifest
	if err := json.Unmarshal(body, &parsed); err != nil {
		return "", errs.InvalidArgument("cannot read the manifest of the README: %w", err)
	}
	for _, layer := range parsed.Layers {
		if layer.MediaType == ReadmeMediaType {
			data, err := c.read(ctx, repository, layer.Digest, maxReadme)
			return string(data), err
		}
	}
	return "", nil
}

func (c *Catalog) readmeAnnotation(ctx context.Context, repository, reference string) (string, error) {
	m, err := c.depot.StatManifest(ctx, repository, reference)
	if errors.Is(err, errdefs.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	text := m.Annotations[ReadmeAnnotation]
	if text == "" && len(m.Manifests) > 0 {
		if child, err := c.depot.StatManifest(ctx, repository, m.Manifests[0].String()); err == nil {
			text = child.Annotations[ReadmeAnnotation]
		}
	}
	return text[:min(len(text), maxReadme)], nil
}
