package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
)

// LoadOptions says what of an archive to load.
type LoadOptions struct {
	// Platforms are those wanted. Empty is all that an index lists and the
	// archive has, and of images by themselves the host's, or what there is.
	Platforms []ocispec.Platform
	// Quiet leaves out the progress of layers.
	Quiet bool
	// Progress is given Docker's messages, one at a time.
	Progress func(jsonstream.Message)
}

// dockerEntry is one image in manifest.json of Docker's archives.
type dockerEntry struct {
	Config       string
	RepoTags     []string
	Layers       []string
	LayerSources map[digest.Digest]ocispec.Descriptor `json:",omitempty"`
}

// Load brings in the images of an archive: Docker's, or an OCI image layout,
// in a tar that may be compressed. It fails with ErrInvalidArgument for
// anything else.
func (m *Manager) Load(ctx context.Context, r io.Reader, opts LoadOptions) error {
	out := newPrinter(opts.Progress)
	defer out.close()
	in := m.begin()
	defer in.end()
	a, err := spool(ctx, in, r)
	if err != nil {
		return err
	}
	ld := &loader{m: m, in: in, a: a, opts: opts, out: out}
	switch {
	case a.has(ocispec.ImageLayoutFile) && a.has(ocispec.ImageIndexFile):
		return ld.layout(ctx)
	case a.has("manifest.json"):
		return ld.docker(ctx)
	}
	return errs.InvalidArgument("the archive is no image: it has neither manifest.json nor an OCI index.json")
}

// loader loads the images of one archive.
type loader struct {
	m    *Manager
	in   *ingest
	a    *archive
	opts LoadOptions
	out  *printer
}

// watch shows a layer being unpacked.
func (ld *loader) watch(desc ocispec.Descriptor) func(step) {
	if ld.opts.Quiet {
		return func(step) {}
	}
	show := ld.out.layer(short(desc.Digest))
	return func(s step) {
		if s.status == stepExtracting {
			show(step{"Loading layer", s.current, s.total})
		}
	}
}

// docker loads what manifest.json lists.
func (ld *loader) docker(ctx context.Context) error {
	var entries []dockerEntry
	if err := ld.a.json(ld.in, "manifest.json", &entries); err != nil {
		return err
	}
	if len(entries) == 0 {
		return errs.InvalidArgument("the archive's manifest.json lists no image")
	}
	for _, entry := range entries {
		src, err := ld.dockerSource(ctx, entry)
		if err != nil {
			return err
		}
		if err := ld.take(ctx, src, entry.RepoTags); err != nil {
			return err
		}
	}
	return nil
}

// dockerSource writes the manifest a Docker archive has no place for.
func (ld *loader) dockerSource(ctx context.Context, entry dockerEntry) (source, error) {
	config, err := ld.a.lookup(entry.Config)
	if err != nil {
		return source{}, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config.digest, Size: config.size},
		Layers:    []ocispec.Descriptor{},
	}
	for _, name := range entry.Layers {
		f, err := ld.a.lookup(name)
		if err != nil {
			return source{}, err
		}
		mediaType, err := ld.m.layerMediaType(f.digest)
		if err != nil {
			return source{}, err
		}
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: f.digest, Size: f.size})
	}
	return ld.source(manifest)
}

func (ld *loader) source(manifest ocispec.Manifest) (source, error) {
	data, err := json.Marshal(manifest)
	if err != nil {
		return source{}, err
	}
	desc := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	src := ld.sourceOf(desc, data)
	src.made = true
	return src, nil
}

func (ld *loader) sourceOf(desc ocispec.Descriptor, data []byte) source {
	return source{manifest: desc, data: data, open: ld.m.fromStore, parallel: 2, watch: ld.watch}
}

// layerMediaType tells a layer's type by how the blob begins.
func (m *Manager) layerMediaType(dgst digest.Digest) (string, error) {
	f, err := m.opts.Content.Open(dgst)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	switch layer.Detect(head[:n]) {
	case layer.Gzip:
		return ocispec.MediaTypeImageLayerGzip, nil
	case layer.Zstd:
		return ocispec.MediaTypeImageLayerZstd, nil
	}
	return ocispec.MediaTypeImageLayer, nil
}

// named are the names an archive gives.
func (ld *loader) named(tags []string) (names []reference.Named, err error) {
	for _, tag := range tags {
		named, err := parseName(tag)
		if err != nil {
			return nil, fmt.Errorf("the archive names an image %q: %w", tag, err)
		}
		names = append(names, named)
	}
	return names, nil
}

// take brings one image in and names it.
func (ld *loader) take(ctx context.Context, src source, tags []string) error {
	if len(ld.opts.Platforms) == 1 {
		src.want = &ld.opts.Platforms[0]
	}
	names, err := ld.named(tags)
	if err != nil {
		return err
	}
	taken, err := ld.m.take(ctx, ld.in, src)
	if err != nil {
		return err
	}
	return ld.name(oneImage(src.manifest, taken.entry), names)
}

// name names what was loaded, and tells of it.
func (ld *loader) name(t *target, names []reference.Named) error {
	e := t.entry()
	for _, named := range names {
		before, err := ld.m.pointTo(named, t, ld.in)
		if err != nil {
			return err
		}
		if before != "" && !t.has(before) && !isDigestKey(refKey(named)) {
			ld.out.stream(fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n",
				reference.FamiliarString(named), before))
		}
		ld.out.stream(fmt.Sprintf("Loaded image: %s\n", reference.FamiliarString(named)))
	}
	if len(names) == 0 {
		ld.out.stream(fmt.Sprintf("Loaded image ID: %s\n", e.id))
	}
	ld.m.publish(events.ActionLoad, e, e.id.String(), e.id.String())
	return nil
}
