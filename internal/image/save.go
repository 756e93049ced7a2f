package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry"
)

// saved is one image on its way into an archive.
type saved struct {
	entry    *entry
	platform ocispec.Platform
	created  time.Time
	manifest ocispec.Descriptor
	written  []byte // the manifest, when it is not the stored one
	tags     []reference.NamedTagged
}

// Save writes the images to w as one tar archive that is both an OCI image
// layout and what docker load understands. A name without a tag is all tags of
// the repository; an image saved by its ID has no name in the archive. Nothing
// is written when an image is not found.
func (m *Manager) Save(ctx context.Context, refs []string, w io.Writer, platforms []ocispec.Platform) error {
	in := m.begin()
	defer in.end()
	var platform *ocispec.Platform
	if len(platforms) > 0 {
		platform = &platforms[0]
	}
	var images []*saved
	for _, ref := range refs {
		if err := m.selectSaved(in, &images, ref, platform); err != nil {
			return err
		}
	}
	aw := &archiveWriter{m: m, tw: tar.NewWriter(w), done: map[string]bool{}}
	for _, img := range images {
		if err := aw.image(ctx, img); err != nil {
			return fmt.Errorf("cannot save image %s: %w", short(img.entry.id), err)
		}
	}
	if err := aw.tables(images); err != nil {
		return err
	}
	for _, img := range images {
		m.publish(events.ActionSave, img.entry, img.entry.id.String(), img.entry.id.String())
	}
	return aw.tw.Close()
}

// selectSaved adds what a reference names to the images, each of them once,
// and pins it.
func (m *Manager) selectSaved(in *ingest, images *[]*saved, ref string, platform *ocispec.Platform) error {
	add := func(ref string, tag reference.NamedTagged) error {
		e, config, err := m.resolve(ref, platform)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(*images, func(s *saved) bool { return s.entry.id == e.id })
		if i < 0 {
			s := &saved{entry: e, platform: platformOf(config)}
			if config.Created != nil {
				s.created = *config.Created
			}
			for _, d := range []digest.Digest{e.id, e.Manifest.Digest} {
				in.adopt(d)
			}
			for _, l := range e.Layers {
				in.adopt(l.Blob.Digest)
			}
			if err := m.savedManifest(s); err != nil {
				return err
			}
			i = len(*images)
			*images = append(*images, s)
		}
		if s := (*images)[i]; tag != nil && !slices.ContainsFunc(s.tags, func(t reference.NamedTagged) bool { return t.String() == tag.String() }) {
			s.tags = append(s.tags, tag)
		}
		return nil
	}
	e, err := m.find(ref)
	if err == nil && isIDPrefix(e.id, ref) {
		return add(ref, nil)
	}
	named, parseErr := reference.ParseNormalizedNamed(ref)
	if parseErr != nil {
		return badReference(parseErr)
	}
	if !reference.IsNameOnly(named) {
		tagged, _ := named.(reference.NamedTagged)
		return add(ref, tagged)
	}
	tags := m.tagsOf(named.Name())
	if len(tags) == 0 {
		return add(ref, nil) // and hear that there is none
	}
	for _, tag := range tags {
		if err := add(tag.String(), tag); err != nil {
			return err
		}
	}
	return nil
}

// tagsOf lists the tags of a repository.
func (m *Manager) tagsOf(repository string) (tags []reference.NamedTagged) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for key := range m.byRef {
		if isDigestKey(key) || repositoryOf(key) != repository {
			continue
		}
		if named, err := reference.ParseNormalizedNamed(key); err == nil {
			tags = append(tags, named.(reference.NamedTagged))
		}
	}
	slices.SortFunc(tags, func(a, b reference.NamedTagged) int {
		if a.Tag() < b.Tag() {
			return -1
		}
		return 1
	})
	return tags
}

// savedManifest is the manifest the image came with, unless a layer's blob is
// another one than it names: then one is written that names what there is.
func (m *Manager) savedManifest(s *saved) error {
	e := s.entry
	s.manifest = ocispec.Descriptor{MediaType: e.Manifest.MediaType, Digest: e.Manifest.Digest, Size: e.Manifest.Size}
	data, err := m.opts.Content.ReadAll(e.Manifest.Digest, registry.MaxManifest)
	if err != nil {
		return err
	}
	manifest, err := parseManifest(data)
	if err != nil {
		return err
	}
	same := slices.EqualFunc(manifest.Layers, e.Layers, func(d ocispec.Descriptor, l layerRecord) bool {
		return d.Digest == l.Blob.Digest
	})
	if same {
		return nil
	}
	rewritten := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Config:      ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: e.id, Size: manifest.Config.Size},
		Annotations: manifest.Annotations,
	}
	for _, l := range e.Layers {
		rewritten.Layers = append(rewritten.Layers, ocispec.Descriptor{
			MediaType: ociLayerType(l.Blob.MediaType), Digest: l.Blob.Digest, Size: l.Blob.Size})
	}
	if s.written, err = json.Marshal(rewritten); err != nil {
		return err
	}
	s.manifest = ocispec.Descriptor{MediaType: rewritten.MediaType,
		Digest: digest.FromBytes(s.written), Size: int64(len(s.written))}
	return nil
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

// archiveWriter writes each file of an archive once.
type archiveWriter struct {
	m    *Manager
	tw   *tar.Writer
	done map[string]bool
}

func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (aw *archiveWriter) image(ctx context.Context, img *saved) error {
	if img.written != nil {
		if err := aw.bytes(blobName(img.manifest.Digest), img.written, img.created); err != nil {
			return err
		}
	} else if err := aw.blob(ctx, img.manifest.Digest, img.created); err != nil {
		return err
	}
	if err := aw.blob(ctx, img.entry.id, img.created); err != nil {
		return err
	}
	for _, l := range img.entry.Layers {
		if err := aw.blob(ctx, l.Blob.Digest, img.created); err != nil {
			return err
		}
	}
	return nil
}

// directories writes the entries some readers of layouts expect.
func (aw *archiveWriter) directories(algorithm string, created time.Time) error {
	for _, dir := range []string{"blobs/", "blobs/" + algorithm + "/"} {
		if aw.done[dir] {
			continue
		}
		aw.done[dir] = true
		err := aw.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: created})
		if err != nil {
			return err
		}
	}
	return nil
}

func (aw *archiveWriter) blob(ctx context.Context, d digest.Digest, created time.Time) error {
	name := blobName(d)
	if aw.done[name] {
		return nil
	}
	aw.done[name] = true
	if err := aw.directories(d.Algorithm().String(), created); err != nil {
		return err
	}
	f, err := aw.m.opts.Content.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = aw.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: 0o644, ModTime: created})
	if err != nil {
		return err
	}
	_, err = io.Copy(aw.tw, &reader{ctx, f})
	return err
}

func (aw *archiveWriter) bytes(name string, data []byte, created time.Time) error {
	if aw.done[name] {
		return nil
	}
	aw.done[name] = true
	err := aw.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: created})
	if err != nil {
		return err
	}
	_, err = aw.tw.Write(data)
	return err
}

// tables writes what says which blobs make up which image.
func (aw *archiveWriter) tables(images []*saved) error {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	entries := []dockerEntry{}
	for _, img := range images {
		desc := img.manifest
		desc.Platform = &img.platform
		if len(img.tags) == 0 {
			index.Manifests = append(index.Manifests, desc)
		}
		entry := dockerEntry{Config: blobName(img.entry.id), Layers: []string{}, LayerSources: map[digest.Digest]ocispec.Descriptor{}}
		for _, tag := range img.tags {
			entry.RepoTags = append(entry.RepoTags, reference.FamiliarString(tag))
			desc.Annotations = map[string]string{annotationContainerd: tag.String(), ocispec.AnnotationRefName: tag.Tag()}
			index.Manifests = append(index.Manifests, desc)
		}
		for _, l := range img.entry.Layers {
			entry.Layers = append(entry.Layers, blobName(l.Blob.Digest))
			entry.LayerSources[l.DiffID] = ocispec.Descriptor{MediaType: l.Blob.MediaType, Digest: l.Blob.Digest, Size: l.Blob.Size}
		}
		entries = append(entries, entry)
	}
	for _, t := range []struct {
		name string
		v    any
	}{
		{ocispec.ImageIndexFile, index},
		{"manifest.json", entries},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		data, err := json.Marshal(t.v)
		if err != nil {
			return err
		}
		if err := aw.bytes(t.name, data, time.Unix(0, 0)); err != nil {
			return err
		}
	}
	return nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
