package image

import (
	"context"
	"errors"

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
	// Platform is the one wanted, besides what is here of the same index;
	// nil is the host's, or what there is when the tag stands for one image.
	Platform *ocispec.Platform
	// AllPlatforms keeps an index whole, with what is no image in it.
	AllPlatforms bool
	Auth         *registry.AuthConfig
	// AllTags pulls every tag of the repository; the reference has none then.
	AllTags bool
	// Progress is given Docker's progress messages, one at a time.
	Progress func(jsonstream.Message)
}

// Pull fetches what ref names from its registry. A failure leaves nothing
// behind but layers that other images have as well, and what was fetched of
// blobs: the next pull goes on with it, for a day.
func (m *Manager) Pull(ctx context.Context, ref string, opts PullOptions) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return badReference(err)
	}
	out := newPrinter(opts.Progress)
	defer out.close()
	ctx = registry.WithNotices(ctx, func(sentence string) { out.status("", sentence) })
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
	t, fresh, err := m.pullTarget(ctx, in, named, pulled{repo, desc, data}, opts, out)
	if err != nil {
		return pullError(named, err)
	}
	moved, err := m.pullRefs(in, named, t)
	if err != nil {
		return err
	}
	in.settle()
	m.notePulled(named, t)
	m.touch(t.entry().id)
	out.status("", "Digest: "+desc.Digest.String())
	if fresh || moved {
		out.status("", "Status: Downloaded newer image for "+reference.FamiliarString(named))
	} else {
		out.status("", "Status: Image is up to date for "+reference.FamiliarString(named))
	}
	m.publish(events.ActionPull, t.entry(), reference.FamiliarString(named), reference.FamiliarName(named))
	return nil
}

// pulled is what a registry has under a tag or a digest.
type pulled struct {
	repo *registry.Repository
	desc ocispec.Descriptor
	data []byte
}

// pullTarget brings in what a name stands for at a registry, as far as it is
// wanted, and tells whether any of it is new.
func (m *Manager) pullTarget(ctx context.Context, in *ingest, named reference.Named, p pulled, opts PullOptions, out *printer) (*target, bool, error) {
	kind, err := kindOf(p.desc.MediaType, p.data)
	if err != nil {
		return nil, false, err
	}
	p.desc.MediaType = kind
	src := source{
		manifest: p.desc,
		data:     p.data,
		open:     p.repo.Blob,
		parallel: m.opts.Parallel,
		want:     opts.Platform,
		watch:    func(d ocispec.Descriptor) func(step) { return out.layer(short(d.Digest)) },
	}
	if isIndex(kind) {
		return m.takeIndex(ctx, in, indexSource{desc: p.desc, data: p.data, get: p.get, image: src, want: opts.platforms()})
	}
	if isSchema1(kind) {
		return nil, false, errSchema1()
	}
	if e, err := m.upToDate(in, named, p.desc.Digest, opts.Platform); err != nil {
		return nil, false, err
	} else if e != nil {
		return oneImage(p.desc, e), false, nil
	}
	taken, err := m.take(ctx, in, src)
	if err != nil {
		return nil, false, err
	}
	return oneImage(p.desc, taken.entry), taken.fresh, nil
}

// get fetches a manifest that an index lists.
func (p pulled) get(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	_, data, err := p.repo.Manifest(ctx, d.Digest.String())
	if err == nil && d.Size != int64(len(data)) {
		err = wrongManifestSize(d, len(data))
	}
	return data, err
}

// platforms lists those wanted of an index; none is all of them.
func (o *PullOptions) platforms() []ocispec.Platform {
	switch {
	case o.AllPlatforms:
		return nil
	case o.Platform != nil:
		return []ocispec.Platform{normalize(*o.Platform)}
	}
	return []ocispec.Platform{HostPlatform()}
}

// upToDate returns the image when the repository is known to have it under the
// digest of its manifest, and it is of the right platform.
func (m *Manager) upToDate(in *ingest, named reference.Named, dgst digest.Digest, platform *ocispec.Platform) (*entry, error) {
	m.mu.RLock()
	ref, ok := m.byRef[named.Name()+"@"+dgst.String()]
	e := m.byID[ref.ID]
	if e != nil && ref.Target.Digest == dgst {
		in.pinEntry(e)
		in.pinBlob(dgst)
	}
	m.mu.RUnlock()
	if !ok || e == nil || ref.Target.Digest != dgst {
		return nil, nil
	}
	config, err := e.config()
	if err != nil {
		return nil, err
	}
	if platform != nil && rank(*platform, platformOf(config)) < 0 {
		return nil, nil // taking it tells so
	}
	return e, nil
}

// pullRefs names what was pulled by its digest and its tag, and tells whether
// the name that was asked for is new to it.
func (m *Manager) pullRefs(in *ingest, named reference.Named, t *target) (moved bool, err error) {
	canonical, err := reference.WithDigest(reference.TrimNamed(named), t.desc.Digest)
	if err != nil {
		return false, err
	}
	before, err := m.pointTo(canonical, t, in)
	if err != nil {
		return false, err
	}
	if _, ok := named.(reference.Digested); ok {
		return before == "", nil
	}
	m.mu.RLock()
	ref := m.byRef[refKey(named)]
	m.mu.RUnlock()
	if ref.ID != "" && ref.Target.Digest == t.desc.Digest {
		return false, nil // nothing to write
	}
	_, err = m.pointTo(named, t, in)
	return true, err
}

// pullError says a registry's refusal as Docker does.
func pullError(named reference.Named, err error) error {
	if errors.Is(err, errdefs.ErrUnauthenticated) {
		// Its client asks for a password when it is told 401, also where
		// nobody is there to type one; so Docker never does.
		return errs.System("cannot pull %s: %w", reference.FamiliarString(named), err)
	}
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
