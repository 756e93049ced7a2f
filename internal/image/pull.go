package image

import (
	"context"
	"errors"
	"io"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

// PullOptions says what of a repository to pull, and as whom.
type PullOptions struct {
	// Platform is the one wanted; nil is the host's, or what there is when
	// the tag stands for one image.
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	// AllTags pulls every tag of the repository; the reference has none then.
	AllTags bool
	// Progress is given Docker's progress messages, one at a time.
	Progress func(jsonstream.Message)
}

// Pull fetches what ref names from its registry. A failure leaves nothing
// behind but layers that other images have as well.
func (m *Manager) Pull(ctx context.Context, ref string, opts PullOptions) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return badReference(err)
	}
	out := newPrinter(opts.Progress)
	defer out.close()
	repo, err := m.opts.Registry.Repository(ctx, named, opts.Auth)
	if err != nil {
		return err
	}
	if !opts.AllTags {
		return m.pullOne(ctx, repo, reference.TagNameOnly(named), opts, out)
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return pullError(named, err)
	}
	if len(tags) == 0 {
		return errs.NotFound("repository %s has no tags", reference.FamiliarName(named))
	}
	for _, tag := range tags {
		tagged, err := reference.WithTag(reference.TrimNamed(named), tag)
		if err != nil {
			return badReference(err)
		}
		if err := m.pullOne(ctx, repo, tagged, opts, out); err != nil {
			return err
		}
	}
	return nil
}

// wanted is the part of a reference that a registry is asked for.
func wanted(named reference.Named) string {
	if digested, ok := named.(reference.Digested); ok {
		return digested.Digest().String()
	}
	return named.(reference.Tagged).Tag()
}

func (m *Manager) pullOne(ctx context.Context, repo *registry.Repository, named reference.Named, opts PullOptions, out *printer) error {
	want := wanted(named)
	in := m.begin()
	defer in.end()
	desc, data, err := repo.Manifest(ctx, want)
	if err != nil {
		return pullError(named, err)
	}
	// Only now: what failed before the first line has a status of its own.
	out.status(want, "Pulling from "+reference.Path(named))
	e, err := m.upToDate(in, named, desc.Digest, opts.Platform)
	fresh := false
	if e == nil && err == nil {
		e, fresh, err = m.pullImage(ctx, in, repo, desc, data, opts, out)
	}
	if err != nil {
		return pullError(named, err)
	}
	moved, err := m.pullRefs(in, named, desc.Digest, e)
	if err != nil {
		return err
	}
	out.status("", "Digest: "+desc.Digest.String())
	if fresh || moved {
		out.status("", "Status: Downloaded newer image for "+reference.FamiliarString(named))
	} else {
		out.status("", "Status: Image is up to date for "+reference.FamiliarString(named))
	}
	m.publish(events.ActionPull, e, reference.FamiliarString(named), reference.FamiliarName(named))
	return nil
}

// upToDate returns the image when the digest is known by this repository and
// is of the right platform.
func (m *Manager) upToDate(in *ingest, named reference.Named, dgst digest.Digest, platform *ocispec.Platform) (*entry, error) {
	m.mu.RLock()
	ref, ok := m.byRef[named.Name()+"@"+dgst.String()]
	e := m.byID[ref.ID]
	if e != nil {
		in.pinEntry(e)
	}
	m.mu.RUnlock()
	if !ok || e == nil {
		return nil, nil
	}
	config, err := e.config()
	if err != nil {
		return nil, err
	}
	want := HostPlatform()
	if platform != nil {
		want = *platform
	}
	if e.Manifest.Digest != dgst && rank(want, platformOf(config)) != 0 {
		return nil, nil // from an index that may have a better one
	}
	if platform != nil && rank(want, platformOf(config)) < 0 {
		return nil, nil
	}
	return e, nil
}

// pullImage goes from what the tag stands for down to one manifest, and takes
// the image in.
func (m *Manager) pullImage(ctx context.Context, in *ingest, repo *registry.Repository, desc ocispec.Descriptor, data []byte, opts PullOptions, out *printer) (*entry, bool, error) {
	open := func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return repo.Blob(ctx, d, 0)
	}
	want := HostPlatform()
	if opts.Platform != nil {
		want = normalize(*opts.Platform)
	}
	get := func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		_, data, err := repo.Manifest(ctx, d.Digest.String())
		if err == nil && d.Size != int64(len(data)) {
			err = errs.InvalidArgument("manifest %s has %d bytes where the index says %d", d.Digest, len(data), d.Size)
		}
		return data, err
	}
	manifest, data, err := descend(ctx, desc, data, forPlatform(want), get)
	if err != nil {
		return nil, false, err
	}
	return m.take(ctx, in, source{
		manifest: manifest,
		data:     data,
		open:     open,
		parallel: m.opts.Parallel,
		want:     opts.Platform,
		watch: func(d ocispec.Descriptor) func(step) {
			return out.layer(short(d.Digest))
		},
	})
}

// maxDepth bounds indexes within indexes; more than two levels are not known
// to exist.
const maxDepth = 8

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
func descend(ctx context.Context, desc ocispec.Descriptor, data []byte, pick picker, get func(context.Context, ocispec.Descriptor) ([]byte, error)) (ocispec.Descriptor, []byte, error) {
	seen := map[digest.Digest]bool{}
	for range maxDepth {
		kind, err := kindOf(desc.MediaType, data)
		if err != nil {
			return desc, nil, err
		}
		desc.MediaType = kind
		if isSchema1(kind) {
			return desc, nil, errs.InvalidArgument(
				"the image is in Docker's manifest schema 1, which is no longer supported: its author has to push it again in the OCI format")
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
		if desc, data = next, nil; desc.Size > registry.MaxManifest {
			return desc, nil, errs.InvalidArgument("manifest %s is larger than %d MiB", desc.Digest, registry.MaxManifest>>20)
		}
		if data, err = get(ctx, desc); err != nil {
			return desc, nil, err
		}
	}
	return desc, nil, errs.InvalidArgument("image indexes are nested more than %d deep", maxDepth)
}

// pullRefs names the pulled image by its digest and its tag, and tells whether
// the name that was asked for is new to it.
func (m *Manager) pullRefs(in *ingest, named reference.Named, dgst digest.Digest, e *entry) (moved bool, err error) {
	canonical, err := reference.WithDigest(reference.TrimNamed(named), dgst)
	if err != nil {
		return false, err
	}
	before, err := m.point(canonical, e, in)
	if err != nil {
		return false, err
	}
	if _, ok := named.(reference.Digested); ok {
		return before != e.id, nil
	}
	m.mu.RLock()
	before = m.byRef[refKey(named)].ID
	m.mu.RUnlock()
	if before == e.id {
		return false, nil // nothing to write
	}
	_, err = m.point(named, e, in)
	return true, err
}

// pullError says a registry's refusal as Docker does.
func pullError(named reference.Named, err error) error {
	var refused *registry.ResponseError
	if !errors.As(err, &refused) {
		return err
	}
	switch {
	case refused.Code == registry.CodeManifestUnknown:
		return errs.NotFound("manifest for %s not found: %w", reference.FamiliarString(named), err)
	case refused.Code == registry.CodeNameUnknown:
		return errs.NotFound("repository %s not found: %w", reference.FamiliarName(named), err)
	case refused.Code == registry.CodeDenied || errors.Is(err, errdefs.ErrPermissionDenied):
		return errs.NotFound("pull access denied for %s, repository does not exist or may require 'docker login': %w",
			reference.FamiliarName(named), err)
	}
	return err
}
