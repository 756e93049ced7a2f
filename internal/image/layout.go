package image

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

// found is one image of an OCI layout: a manifest for a platform, and what the
// index calls it.
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
	if err := ld.dockerNames(images); err != nil {
		return err
	}
	for _, img := range images {
		if err := ld.take(ctx, ld.sourceOf(img.desc, img.data), img.tags); err != nil {
			return err
		}
	}
	return nil
}

// findAll goes through the top of the index, where images have names. Of those
// for several platforms the wanted are taken; when nothing was asked for and
// none is the host's, the first of each.
func (ld *loader) findAll(ctx context.Context, index *ocispec.Index) ([]*found, error) {
	platforms := ld.opts.Platforms
	if len(platforms) == 0 {
		platforms = []ocispec.Platform{HostPlatform()}
	}
	images := &foundSet{}
	var missing error
	for _, want := range platforms {
		for _, top := range index.Manifests {
			if isAttestation(top) || top.Platform != nil && rank(want, *top.Platform) < 0 {
				continue
			}
			img, err := ld.findOne(ctx, top, forPlatform(want))
			if errors.Is(err, errdefs.ErrNotFound) {
				missing = err
				continue
			}
			if err != nil {
				return nil, err
			}
			images.add(img, nameOf(top.Annotations))
		}
	}
	if len(images.list) == 0 && len(ld.opts.Platforms) == 0 {
		return ld.findAny(ctx, index)
	}
	if len(images.list) == 0 && missing == nil {
		missing = errs.NotFound("the archive has no image for %s: there are %s",
			FormatPlatform(platforms[0]), describePlatforms(index))
	}
	if len(images.list) == 0 {
		return nil, missing
	}
	return images.list, nil
}

// findAny takes every image the top of the index names, whatever its platform.
func (ld *loader) findAny(ctx context.Context, index *ocispec.Index) ([]*found, error) {
	images := &foundSet{}
	for _, top := range index.Manifests {
		if isAttestation(top) {
			continue
		}
		img, err := ld.findOne(ctx, top, func(index *ocispec.Index) (ocispec.Descriptor, error) {
			for _, d := range index.Manifests {
				if !isAttestation(d) {
					return d, nil
				}
			}
			return ocispec.Descriptor{}, errs.InvalidArgument("the archive has an image index without an image")
		})
		if err != nil {
			return nil, err
		}
		images.add(img, nameOf(top.Annotations))
	}
	if len(images.list) == 0 {
		return nil, errs.InvalidArgument("the archive's index.json lists no image")
	}
	return images.list, nil
}

// foundSet holds each image once, with all its names.
type foundSet struct {
	list []*found
}

func (s *foundSet) add(img *found, name string) {
	i := slices.IndexFunc(s.list, func(have *found) bool { return have.desc.Digest == img.desc.Digest })
	if i < 0 {
		i = len(s.list)
		s.list = append(s.list, img)
	}
	if name != "" && !slices.Contains(s.list[i].tags, name) {
		s.list[i].tags = append(s.list[i].tags, name)
	}
}

func (ld *loader) findOne(ctx context.Context, top ocispec.Descriptor, pick picker) (*found, error) {
	get := func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		f, err := ld.a.lookup("blobs/" + d.Digest.Algorithm().String() + "/" + d.Digest.Encoded())
		if err != nil {
			return nil, err
		}
		if f.size != d.Size {
			return nil, errs.InvalidArgument("blob %s has %d bytes where the index says %d", d.Digest, f.size, d.Size)
		}
		return ld.m.opts.Content.ReadAll(f.digest, registry.MaxManifest)
	}
	data, err := get(ctx, top)
	if err != nil {
		return nil, err
	}
	desc, data, err := descend(ctx, top, data, pick, get)
	if err != nil {
		return nil, err
	}
	// The place in the index is not part of the image.
	return &found{
		desc: ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size},
		data: data,
	}, nil
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

// dockerNames adds the tags of manifest.json, which some writers of archives
// that are both put only there.
func (ld *loader) dockerNames(images []*found) error {
	if !ld.a.has("manifest.json") {
		return nil
	}
	var entries []dockerEntry
	if err := ld.a.json(ld.in, "manifest.json", &entries); err != nil {
		return err
	}
	for _, img := range images {
		if len(img.tags) > 0 {
			continue
		}
		manifest, err := parseManifest(img.data)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if f, err := ld.a.lookup(entry.Config); err == nil && f.digest == manifest.Config.Digest {
				img.tags = append(img.tags, entry.RepoTags...)
			}
		}
	}
	return nil
}
