package image

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

const (
	// maxDepth bounds indexes within indexes; more than two levels are not
	// known to exist.
	maxDepth = 8
	// maxManifests bounds what one index leads to.
	maxManifests = 4096
)

// getter fetches a manifest or an index. Its bytes have the descriptor's digest
// and size.
type getter func(ctx context.Context, d ocispec.Descriptor) ([]byte, error)

// picker picks one manifest of an index.
type picker func(*ocispec.Index) (ocispec.Descriptor, error)

func forPlatform(want ocispec.Platform) picker {
	return func(index *ocispec.Index) (ocispec.Descriptor, error) {
		if d, ok := choose(index, want); ok {
			return d, nil
		}
		return ocispec.Descriptor{}, errs.NotFound("no matching manifest for %s in the manifest list entries: there are %s",
			FormatPlatform(want), describePlatforms(index))
	}
}

// descend follows indexes to the manifest of one image.
func descend(ctx context.Context, desc ocispec.Descriptor, data []byte, pick picker, get getter) (ocispec.Descriptor, []byte, error) {
	seen := map[digest.Digest]bool{}
	for range maxDepth {
		kind, err := kindOf(desc.MediaType, data)
		if err != nil {
			return desc, nil, err
		}
		desc.MediaType = kind
		if isSchema1(kind) {
			return desc, nil, errSchema1()
		}
		if isManifest(kind) {
			return desc, data, nil
		}
		index, err := parseIndex(data)
		if err != nil {
			return desc, nil, err
		}
		next, err := pick(index)
		if err != nil {
			return desc, nil, err
		}
		if seen[next.Digest] || next.Digest == desc.Digest {
			return desc, nil, errs.InvalidArgument("image index %s refers to itself", desc.Digest)
		}
		seen[desc.Digest] = true
		desc = next
		if data, err = get(ctx, desc); err != nil {
			return desc, nil, err
		}
	}
	return desc, nil, errs.InvalidArgument("image indexes are nested more than %d deep", maxDepth)
}

func errSchema1() error {
	return errs.InvalidArgument(
		"the image is in Docker's manifest schema 1, which is no longer supported: its author has to push it again in the OCI format")
}

// walkIndex calls f for everything an index in the store leads to, as far as it
// is there; the index itself is not among it.
func (m *Manager) walkIndex(ctx context.Context, desc ocispec.Descriptor, f func(ocispec.Descriptor) error) error {
	return m.walkIndexes(ctx, desc, 0, map[digest.Digest]bool{}, f)
}

func (m *Manager) walkIndexes(ctx context.Context, desc ocispec.Descriptor, depth int, seen map[digest.Digest]bool, f func(ocispec.Descriptor) error) error {
	if depth == maxDepth || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	data, err := m.opts.Content.ReadAll(desc.Digest, registry.MaxManifest)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	index, err := parseIndex(data)
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if seen[d.Digest] || len(seen) > maxManifests {
			continue
		}
		seen[d.Digest] = true
		if err := f(d); err != nil {
			return err
		}
		if isIndex(d.MediaType) {
			if err := m.walkIndexes(ctx, d, depth+1, seen, f); err != nil {
				return err
			}
		}
	}
	return nil
}
