package image

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

// found is what the top of an OCI layout lists: the manifest of an image or an
// index of several, and what it is called.
type found struct {
	desc ocispec.Descriptor
	data []byte
	tags []string
}

// layout loads the images of an OCI image layout (image-layout.md of the OCI
// image specification).
func (ld *loader) layout(ctx context.Context) error {
	var version ocispec.ImageLayout
	if err := ld.a.json(ld.in, ocispec.ImageLayoutFile, &version); err != nil {
		return err
	}
	if !strings.HasPrefix(version.Version, "1.") {
		return errs.InvalidArgument("the archive is an OCI layout of the unknown version %q", version.Version)
	}
	f, err := ld.a.lookup(ocispec.ImageIndexFile)
	if err != nil {
		return err
	}
	data, err := ld.m.opts.Content.ReadAll(f.digest, registry.MaxManifest)
	if err != nil {
		return err
	}
	index, err := parseIndex(data)
	if err != nil {
		return err
	}
	images, err := ld.findAll(ctx, index)
	if err != nil {
		return err
	}
	return ld.takeAll(ctx, images)
}

// findAll goes through the top of the index, where images have names. Indexes
// are for every platform. Of images by themselves those for a platform that is
// wanted are taken; when nothing was asked for and there is none, all.
func (ld *loader) findAll(ctx context.Context, index *ocispec.Index) ([]*found, error) {
	platforms := ld.opts.Platforms
	if len(platforms) == 0 {
		platforms = []ocispec.Platform{HostPlatform()}
	}
	fitting, all := &foundSet{}, &foundSet{}
	for _, top := range index.Manifests {
		if isAttestation(top) {
			continue
		}
		data, err := ld.get(ctx, top)
		if err != nil {
			return nil, err
		}
		kind, err := kindOf(top.MediaType, data)
		if err != nil {
			return nil, err
		}
		top.MediaType = kind
		fits := isIndex(kind) || top.Platform == nil || slices.ContainsFunc(platforms, func(want ocispec.Platform) bool {
			return rank(want, *top.Platform) >= 0
		})
		if fits {
			fitting.add(top, data)
		}
		all.add(top, data)
	}
	switch {
	case len(all.list) == 0:
		return nil, errs.InvalidArgument("the archive's index.json lists no image")
	case len(fitting.list) > 0:
		return fitting.list, nil
	case len(ld.opts.Platforms) == 0:
		return all.list, nil
	}
	return nil, errs.NotFound("the archive has no image for %s: there are %s",
		FormatPlatform(platforms[0]), describePlatforms(index))
}

// takeAll brings in what was found. What has no image for a platform that was
// asked for is left out, unless that leaves nothing.
func (ld *loader) takeAll(ctx context.Context, images []*found) error {
	loaded := 0
	var missing error
	for _, img := range images {
		err := ld.takeFound(ctx, img)
		if errors.Is(err, errdefs.ErrNotFound) && len(ld.opts.Platforms) > 0 {
			missing = err
			continue
		}
		if err != nil {
			return err
		}
		loaded++
	}
	if loaded == 0 {
		return missing
	}
	return nil
}

func (ld *loader) takeFound(ctx context.Context, img *found) error {
	names, err := ld.named(img.tags)
	if err != nil {
		return err
	}
	t, err := ld.targetOf(ctx, img)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if names, err = ld.dockerNames(t); err != nil {
			return err
		}
	}
	return ld.name(t, names)
}

func (ld *loader) targetOf(ctx context.Context, img *found) (*target, error) {
	src := ld.sourceOf(img.desc, img.data)
	if isIndex(img.desc.MediaType) {
		t, _, err := ld.m.takeIndex(ctx, ld.in, indexSource{desc: img.desc, data: img.data, get: ld.get, image: src,
			want: ld.opts.Platforms, partial: true})
		return t, err
	}
	if isSchema1(img.desc.MediaType) {
		return nil, errSchema1()
	}
	if len(ld.opts.Platforms) == 1 {
		src.want = &ld.opts.Platforms[0]
	}
	taken, err := ld.m.take(ctx, ld.in, src)
	if err != nil {
		return nil, err
	}
	return oneImage(img.desc, taken.entry), nil
}

// get reads a manifest of the archive. It fails with ErrNotFound for what the
// archive does not have.
func (ld *loader) get(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Digest.Validate() != nil {
		return nil, errs.InvalidArgument("the archive's index names %q, which is no digest", d.Digest)
	}
	name := blobName(d.Digest)
	if !ld.a.has(name) {
		return nil, errs.NotFound("the archive has no %s, which it refers to", name)
	}
	f, err := ld.a.lookup(name)
	if err != nil {
		return nil, err
	}
	if f.size != d.Size {
		return nil, errs.InvalidArgument("blob %s has %d bytes where the index says %d", d.Digest, f.size, d.Size)
	}
	return ld.m.opts.Content.ReadAll(f.digest, registry.MaxManifest)
}

// foundSet holds each image once, with all its names.
type foundSet struct {
	list []*found
}

func (s *foundSet) add(top ocispec.Descriptor, data []byte) {
	i := slices.IndexFunc(s.list, func(have *found) bool { return have.desc.Digest == top.Digest })
	if i < 0 {
		i = len(s.list)
		s.list = append(s.list, &found{desc: top, data: data})
	}
	name := nameOf(top.Annotations)
	if name != "" && !slices.Contains(s.list[i].tags, name) {
		s.list[i].tags = append(s.list[i].tags, name)
	}
}

// nameOf is an image's name by the annotations of the index. Containerd's is in
// full; OCI's own may be as well, or be a tag alone, which names nothing.
func nameOf(annotations map[string]string) string {
	if name := annotations[annotationContainerd]; name != "" {
		return name
	}
	if name := annotations[ocispec.AnnotationRefName]; strings.ContainsAny(name, "/:@") {
		return name
	}
	return ""
}

// dockerNames are the names manifest.json has for an image, where some writers
// of archives that are both put them only.
func (ld *loader) dockerNames(t *target) ([]reference.Named, error) {
	if !ld.a.has("manifest.json") {
		return nil, nil
	}
	var entries []dockerEntry
	if err := ld.a.json(ld.in, "manifest.json", &entries); err != nil {
		return nil, err
	}
	var tags []string
	for _, entry := range entries {
		if f, err := ld.a.lookup(entry.Config); err == nil && t.has(f.digest) {
			tags = append(tags, entry.RepoTags...)
		}
	}
	return ld.named(tags)
}
