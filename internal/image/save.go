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

	"github.com/gantry-containers/gantry/internal/errs"
)

// saved is what one name stands for, on its way into an archive.
type saved struct {
	main    *outgoing // the image that manifest.json, which knows only one, shows
	created time.Time // of that
	target  ocispec.Descriptor
	index   []byte // the target, when it is an index
	parts   []*outgoing
	tags    []reference.NamedTagged
}

// Save writes the images to w as one tar archive that is both an OCI image
// layout and what docker load understands. A name without a tag is all tags of
// the repository; an image saved by its ID has no name in the archive. Of an
// index all that is here is saved, byte for byte when that is everything, or
// the platforms asked for. Nothing is written when an image is not found.
func (m *Manager) Save(ctx context.Context, refs []string, w io.Writer, platforms []ocispec.Platform) error {
	in := m.begin()
	defer in.end()
	sv := &saver{m: m, in: in, platforms: platforms}
	for _, ref := range refs {
		if err := sv.find(ctx, ref); err != nil {
			return err
		}
	}
	aw := &archiveWriter{m: m, tw: tar.NewWriter(w), done: map[string]bool{}}
	for _, img := range sv.images {
		if err := aw.image(ctx, img); err != nil {
			return fmt.Errorf("cannot save image %s: %w", short(img.main.image.id), err)
		}
	}
	if err := aw.tables(sv.images); err != nil {
		return err
	}
	for _, img := range sv.images {
		e := img.main.image
		m.publish(events.ActionSave, e, e.id.String(), e.id.String())
	}
	return aw.tw.Close()
}

// saver finds what to save, each image once, and pins it.
type saver struct {
	m         *Manager
	in        *ingest
	platforms []ocispec.Platform
	images    []*saved
}

// find adds what a reference names.
func (sv *saver) find(ctx context.Context, ref string) error {
	e, err := sv.m.find(ref)
	if err == nil && isIDPrefix(e.id, ref) {
		return sv.add(ctx, ref, nil)
	}
	named, parseErr := reference.ParseNormalizedNamed(ref)
	if parseErr != nil {
		return badReference(parseErr)
	}
	if !reference.IsNameOnly(named) {
		tagged, _ := named.(reference.NamedTagged)
		return sv.add(ctx, ref, tagged)
	}
	tags := sv.m.tagsOf(named.Name())
	if len(tags) == 0 {
		return sv.add(ctx, ref, nil) // and hear that there is none
	}
	for _, tag := range tags {
		if err := sv.add(ctx, tag.String(), tag); err != nil {
			return err
		}
	}
	return nil
}

func (sv *saver) add(ctx context.Context, ref string, tag reference.NamedTagged) error {
	s, err := sv.prepare(ctx, ref)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(sv.images, func(had *saved) bool { return had.target.Digest == s.target.Digest })
	if i < 0 {
		i = len(sv.images)
		sv.images = append(sv.images, s)
	}
	s = sv.images[i]
	if tag != nil && !slices.ContainsFunc(s.tags, func(t reference.NamedTagged) bool { return t.String() == tag.String() }) {
		s.tags = append(s.tags, tag)
	}
	return nil
}

// prepare works out what to write for a reference: one manifest, the index as
// it came, or one written for what there is of it.
func (sv *saver) prepare(ctx context.Context, ref string) (*saved, error) {
	m := sv.m
	target, kept, err := m.kept(ref)
	if err != nil {
		return nil, err
	}
	adopt := func(d digest.Digest) { sv.in.adopt(d) }
	adopt(target.Digest)
	for _, k := range kept {
		k.eachBlob(adopt)
	}
	whole := false
	if len(sv.platforms) > 0 {
		kept, err = sv.chosen(ref, kept)
	} else if isIndex(target.MediaType) {
		whole, err = m.whole(ctx, target, kept)
	}
	if err != nil {
		return nil, err
	}
	s := &saved{target: bare(target)}
	for _, k := range kept {
		if k.ID == "" && isIndex(k.Descriptor.MediaType) && !whole {
			continue // what it lists is listed instead
		}
		part, err := m.outgoing(k)
		if err != nil {
			return nil, err
		}
		s.parts = append(s.parts, part)
		for _, d := range part.blobs {
			adopt(d.Digest)
		}
	}
	if s.main, err = sv.mainOf(ref, s.parts); err != nil {
		return nil, err
	}
	config, err := s.main.image.config()
	if err != nil {
		return nil, err
	}
	s.created = createdOf(config)
	if s.created.IsZero() {
		s.created = time.Unix(0, 0)
	}
	return s, s.finish(m, whole)
}

// chosen are the images of the platforms asked for.
func (sv *saver) chosen(ref string, kept []keptManifest) (list []keptManifest, err error) {
	rec := &indexRecord{Kept: kept}
	for _, want := range sv.platforms {
		id := rec.choose(want)
		if id == "" {
			_, _, err := sv.m.resolve(ref, &want) // says what there is instead
			if err == nil {
				err = errs.NotFound("image %s is not here for %s", ref, FormatPlatform(want))
			}
			return nil, err
		}
		i := slices.IndexFunc(kept, func(k keptManifest) bool { return k.ID == id })
		if !slices.ContainsFunc(list, func(k keptManifest) bool { return k.ID == id }) {
			list = append(list, kept[i])
		}
	}
	return list, nil
}

// mainOf is the image the reference means, or the first.
func (sv *saver) mainOf(ref string, parts []*outgoing) (main *outgoing, err error) {
	e, err := sv.m.find(ref)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if part.image != nil && (main == nil || part.image.id == e.id) {
			main = part
		}
	}
	if main == nil {
		return nil, errs.NotFound("No such image: %s", ref)
	}
	return main, nil
}

// finish decides what the name stands for in the archive.
func (s *saved) finish(m *Manager, whole bool) (err error) {
	switch {
	case whole:
		s.index, err = m.opts.Content.ReadAll(s.target.Digest, maxConfig)
		return err
	case len(s.parts) == 1:
		s.target = bare(s.main.desc)
		return nil
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, part := range s.parts {
		index.Manifests = append(index.Manifests, part.desc)
	}
	if s.index, err = json.Marshal(index); err != nil {
		return err
	}
	s.target = ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(s.index), Size: int64(len(s.index))}
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
