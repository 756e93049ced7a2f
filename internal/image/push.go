package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

// PushOptions says what to push, and as whom.
type PushOptions struct {
	// Platform pushes the image of an index that is for it, by itself; nil
	// pushes the index when all of it can be had, else the image there is.
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	// AllTags pushes every tag of the repository; the reference has none then.
	AllTags bool
	// Progress is given Docker's progress messages, one at a time.
	Progress func(jsonstream.Message)
}

// Push brings what a name stands for to its registry: byte for byte what was
// pulled or loaded. Layers that were made here and are not compressed yet are
// compressed first, and stay so. What the registry has is not sent; what it has
// in another repository is mounted. It fails with ErrNotFound when there is no
// such tag.
func (m *Manager) Push(ctx context.Context, ref string, opts PushOptions) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return badReference(err)
	}
	if _, ok := named.(reference.Digested); ok {
		return errs.InvalidArgument("cannot push a digest reference")
	}
	out := newPrinter(opts.Progress)
	defer out.close()
	ctx = registry.WithNotices(ctx, func(sentence string) { out.status("", sentence) })
	out.status("", "The push refers to repository ["+named.Name()+"]")
	tags := []reference.NamedTagged{}
	if opts.AllTags {
		tags = m.tagsOf(named.Name())
	} else if tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged); ok && m.hasTag(tagged) {
		tags = append(tags, tagged)
	}
	if len(tags) == 0 {
		return errs.NotFound("An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	repo, err := m.opts.Registry.Repository(ctx, named, opts.Auth)
	if err != nil {
		return fmt.Errorf("cannot push %s: %w", reference.FamiliarString(named), err)
	}
	for _, tag := range tags {
		p := &pusher{m: m, in: m.begin(), repo: repo, name: tag, platform: opts.Platform, out: out}
		err := p.push(ctx)
		p.in.end()
		if err != nil {
			return fmt.Errorf("cannot push %s: %w", reference.FamiliarString(tag), err)
		}
	}
	return nil
}

func (m *Manager) hasTag(name reference.NamedTagged) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.byRef[refKey(name)]
	return ok
}

// pusher is the push of one tag.
type pusher struct {
	m        *Manager
	in       *ingest
	repo     *registry.Repository
	name     reference.NamedTagged
	platform *ocispec.Platform
	out      *printer
}

// shipment is what a tag is to stand for at the registry.
type shipment struct {
	desc  ocispec.Descriptor
	parts []*outgoing  // manifests, what an index lists before it
	index []byte       // above them; nil when there is one part that gets the tag
	rec   *indexRecord // of the index
	// guessed says that the index lists what is not here, and seems to be
	// there already.
	guessed bool
}

func (p *pusher) push(ctx context.Context) error {
	target, kept, err := p.gather(ctx)
	if err != nil {
		return err
	}
	s, err := p.plan(ctx, target, kept)
	if err != nil {
		return err
	}
	err = p.send(ctx, s)
	if err != nil && s.guessed && errors.Is(err, errdefs.ErrNotFound) {
		if s, err = p.single(ctx, target, kept); err == nil {
			err = p.send(ctx, s)
		}
	}
	if err != nil {
		return err
	}
	return p.done(s)
}

// gather finds what the tag stands for, pins all of it, and has it compressed.
func (p *pusher) gather(ctx context.Context) (ocispec.Descriptor, []keptManifest, error) {
	hold := func() (ocispec.Descriptor, []keptManifest, error) {
		target, kept, err := p.m.kept(p.name.String())
		if err != nil {
			return target, nil, err
		}
		adopt := func(d digest.Digest) { p.in.adopt(d) }
		adopt(target.Digest)
		for _, k := range kept {
			k.eachBlob(adopt)
			if k.ID != "" {
				if _, err := p.m.hold(p.in, k.ID); err != nil {
					return target, nil, err
				}
			}
		}
		return target, kept, nil
	}
	target, kept, err := hold()
	if err != nil || isIndex(target.MediaType) {
		return target, kept, err
	}
	if changed, err := p.compress(ctx, kept[0].ID); err != nil || !changed {
		return target, kept, err
	}
	return hold()
}

// plan decides what to send.
func (p *pusher) plan(ctx context.Context, target ocispec.Descriptor, kept []keptManifest) (*shipment, error) {
	if p.platform != nil || !isIndex(target.MediaType) {
		return p.single(ctx, target, kept)
	}
	s, err := p.wholeIndex(ctx, target, kept)
	if err != nil || s != nil {
		return s, err
	}
	return p.single(ctx, target, kept)
}

// wholeIndex is a shipment of the index as it is; nil when that cannot be,
// because something it lists is neither here nor there.
func (p *pusher) wholeIndex(ctx context.Context, target ocispec.Descriptor, kept []keptManifest) (*shipment, error) {
	s := &shipment{desc: bare(target), rec: &indexRecord{Target: bare(target), Kept: kept}}
	for _, k := range kept {
		part, err := p.part(ctx, k)
		if err != nil {
			return nil, err
		}
		if part.desc.Digest != k.Descriptor.Digest {
			return nil, nil
		}
		s.parts = append(s.parts, part)
	}
	missing := false
	err := p.m.walkIndex(ctx, target, func(d ocispec.Descriptor) error {
		if missing || s.rec.find(d.Digest) != nil {
			return nil
		}
		s.guessed = true
		_, err := p.repo.Resolve(ctx, d.Digest.String())
		if errors.Is(err, errdefs.ErrNotFound) {
			missing, err = true, nil
		}
		return err
	})
	if err != nil || missing {
		return nil, err
	}
	s.index, err = p.m.opts.Content.ReadAll(target.Digest, registry.MaxManifest)
	return s, err
}

// single is a shipment of one image: of the platform asked for, or the only one
// here, or the host's.
func (p *pusher) single(ctx context.Context, target ocispec.Descriptor, kept []keptManifest) (*shipment, error) {
	rec := &indexRecord{Target: target, Kept: kept}
	var id digest.Digest
	switch images := rec.images(); {
	case p.platform != nil:
		if id = rec.choose(normalize(*p.platform)); id == "" {
			return nil, errs.NotFound("no suitable image to push: %s is not here for %s",
				reference.FamiliarString(p.name), FormatPlatform(*p.platform))
		}
	case len(images) == 1:
		id = images[0]
	default:
		if id = rec.choose(HostPlatform()); id == "" {
			return nil, errs.Conflict("multiple matching manifests found but no specific platform requested")
		}
	}
	for _, k := range kept {
		if k.ID != id {
			continue
		}
		part, err := p.part(ctx, k)
		if err != nil {
			return nil, err
		}
		if isIndex(target.MediaType) && p.platform == nil {
			p.aux(auxprogress.ManifestPushedInsteadOfIndex{ManifestPushedInsteadOfIndex: true, OriginalIndex: target, SelectedManifest: part.desc})
		}
		return &shipment{desc: bare(part.desc), parts: []*outgoing{part}}, nil
	}
	return nil, errs.NotFound("No such image: %s", id)
}

// done names what was pushed by its digest, and tells of it.
func (p *pusher) done(s *shipment) error {
	p.m.noteSources(p.name, s.parts)
	for _, part := range s.parts {
		if part.image != nil {
			p.m.touch(part.image.id)
		}
	}
	tag := p.name.Tag()
	p.out.status("", fmt.Sprintf("%s: digest: %s size: %d", tag, s.desc.Digest, s.desc.Size))
	p.aux(pushResult{tag, s.desc.Digest.String(), s.desc.Size})
	t := &target{desc: s.desc, index: s.rec, entries: map[digest.Digest]*entry{}}
	for _, part := range s.parts {
		if part.image != nil {
			t.entries[part.image.id], t.main = part.image, part.image.id
		}
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(p.name), s.desc.Digest)
	if err != nil {
		return err
	}
	// An image that was removed meanwhile stays removed.
	if _, err := p.m.pointTo(canonical, t, nil); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	p.m.publish(events.ActionPush, t.entry(), reference.FamiliarString(p.name), reference.FamiliarName(p.name))
	return nil
}

// pushResult is the message clients take the digest from.
type pushResult struct {
	Tag, Digest string
	Size        int64
}

func (p *pusher) aux(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return // of our own types: it cannot be
	}
	p.out.emit(jsonstream.Message{Aux: (*json.RawMessage)(&data)})
}
