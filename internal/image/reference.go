package image

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// parseName reads a name with a tag or digest, of which the tag is "latest"
// when there is neither.
func parseName(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, badReference(err)
	}
	return reference.TagNameOnly(named), nil
}

func badReference(err error) error {
	if errors.Is(err, reference.ErrReferenceInvalidFormat) || strings.HasPrefix(err.Error(), "invalid reference format") {
		return errs.InvalidArgument("%w", err)
	}
	return errs.InvalidArgument("invalid reference format: %w", err)
}

// refKey is how a reference is kept: in full, and by its digest alone when it
// has one, for that is what says which image it is.
func refKey(named reference.Named) string {
	if digested, ok := named.(reference.Canonical); ok {
		return named.Name() + "@" + digested.Digest().String()
	}
	return named.String()
}

// parsedRefs are references that were parsed before, which takes longer than to find
// an image by one: every container of an image is made by the same.
type parsedRefs struct {
	mu   sync.Mutex // guards refs
	refs map[string]reference.Reference
}

// maxParsedRefs bounds them, and maxParsedRef the length of one.
const maxParsedRefs, maxParsedRef = 128, 512

// parse reads a name as parseName does, or the whole ID of an image.
func (p *parsedRefs) parse(ref string) (reference.Reference, error) {
	p.mu.Lock()
	parsed, ok := p.refs[ref]
	p.mu.Unlock()
	if ok {
		return parsed, nil
	}
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil {
		return nil, err
	}
	if named, ok := parsed.(reference.Named); ok {
		parsed = reference.TagNameOnly(named)
	}
	if len(ref) > maxParsedRef {
		return parsed, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refs == nil || len(p.refs) >= maxParsedRefs {
		p.refs = map[string]reference.Reference{}
	}
	p.refs[ref] = parsed
	return parsed, nil
}

// familiar is a kept reference as people write it.
func familiar(key string) string {
	named, err := reference.ParseNormalizedNamed(key)
	if err != nil {
		return key
	}
	return reference.FamiliarString(named)
}

func isDigestKey(key string) bool { return strings.Contains(key, "@") }

// repositoryOf is the repository's name in a kept reference.
func repositoryOf(key string) string {
	if name, _, ok := strings.Cut(key, "@"); ok {
		return name
	}
	return key[:strings.LastIndexByte(key, ':')]
}

// references lists the kept references of an image, sorted: those that mean it,
// and those that stand for an index it is kept of. The caller holds mu.
func (m *Manager) references(id digest.Digest) (keys []string) {
	for key, ref := range m.byRef {
		if ref.ID == id || m.byIndex[ref.Target.Digest].keeps(id) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// names are an image's tags and repository digests as people write them. The
// caller holds mu.
func (m *Manager) names(id digest.Digest) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, key := range m.references(id) {
		if isDigestKey(key) {
			digests = append(digests, familiar(key))
		} else {
			tags = append(tags, familiar(key))
		}
	}
	return tags, digests
}

// unpoint deletes a reference. The caller holds mu.
func (m *Manager) unpoint(key string) error {
	if err := m.refs.Delete(key); err != nil {
		return err
	}
	delete(m.byRef, key)
	return m.dropIndexes()
}

// Tag gives the image another name. The tag is "latest" when it is empty.
func (m *Manager) Tag(src, repo, tag string) error {
	e, desc, err := m.findTarget(src)
	if err != nil {
		return err
	}
	named, err := parseTag(repo, tag)
	if err != nil {
		return err
	}
	if err := m.tag(named, e, desc); err != nil {
		return err
	}
	m.publish(events.ActionTag, e, e.id.String(), reference.FamiliarString(named))
	return nil
}

// tag makes the reference stand for what another stood for.
func (m *Manager) tag(named reference.Named, e *entry, desc ocispec.Descriptor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID[e.id] == nil || isIndex(desc.MediaType) && m.byIndex[desc.Digest] == nil {
		return errs.NotFound("No such image: %s", e.id) // removed since it was found
	}
	if err := m.putRef(refKey(named), refRecord{ID: e.id, Target: desc, Tagged: time.Now().UTC()}); err != nil {
		return err
	}
	return m.dropIndexes()
}

// parseTag reads a name an image is to be given.
func parseTag(repo, tag string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return nil, badReference(err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, errs.InvalidArgument("refusing to create a tag with a digest reference")
	}
	if tag != "" {
		tagged, err := reference.WithTag(reference.TrimNamed(named), tag)
		if err != nil {
			return nil, badReference(err)
		}
		return checkName(tagged)
	}
	return checkName(reference.TagNameOnly(named))
}

// checkName refuses the one name that could not be told from an ID.
func checkName(named reference.Named) (reference.Named, error) {
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return nil, errs.InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
	}
	return named, nil
}
