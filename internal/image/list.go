package image

import (
	"context"
	"slices"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/filter"
)

// ListOptions says which images to list, and what to tell of them.
type ListOptions struct {
	All        bool // also images that are only parents of others
	Filters    filter.Args
	SharedSize bool // work out what is shared; -1 otherwise
	Containers bool // count those made from each; -1 otherwise
	Manifests  bool // describe the manifest of each
}

// List returns the images, newest first.
func (m *Manager) List(ctx context.Context, opts ListOptions) ([]image.Summary, error) {
	sel, err := m.newSelection(opts)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	entries := make([]*entry, 0, len(m.byID))
	parents := map[digest.Digest]bool{}
	for _, e := range m.byID {
		entries = append(entries, e)
		parents[e.Parent] = true
	}
	meant := map[digest.Digest]bool{}
	for _, ref := range m.byRef {
		meant[ref.ID] = true
	}
	m.mu.RUnlock()

	list := []image.Summary{}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		config, err := e.config()
		if err != nil {
			continue // damaged on disk: inspect and run say so
		}
		m.mu.RLock()
		keys := m.references(e.id)
		m.mu.RUnlock()
		if len(keys) > 0 && !meant[e.id] {
			continue // shown among the manifests of the one its names mean
		}
		s, ok := sel.summary(e, config, keys, parents[e.id])
		if !ok {
			continue
		}
		if opts.Manifests {
			s.Manifests, err = m.manifests(ctx, e, config, keys)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if opts.SharedSize {
		shareSizes(list, entries)
	}
	for i := range list {
		if opts.Containers {
			list[i].Containers = int64(len(m.opts.InUse(digest.Digest(list[i].ID))))
		}
		if opts.Manifests {
			list[i].Size = max(list[i].Size, totalOf(list[i].Manifests))
		}
	}
	slices.SortStableFunc(list, func(a, b image.Summary) int {
		if a.Created != b.Created {
			return int(min(1, max(-1, b.Created-a.Created)))
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list, nil
}

// selection is a list's filters, worked out.
type selection struct {
	opts          ListOptions
	dangling      bool
	before, since time.Time
}

func (m *Manager) newSelection(opts ListOptions) (*selection, error) {
	if err := opts.Filters.Validate("dangling", "label", "before", "since", "reference", "until"); err != nil {
		return nil, err
	}
	sel := &selection{opts: opts}
	var err error
	if sel.dangling, err = opts.Filters.Bool("dangling", false); err != nil {
		return nil, err
	}
	for _, ref := range opts.Filters.Get("before") {
		created, err := m.created(ref)
		if err != nil {
			return nil, err
		}
		sel.setBefore(created)
	}
	for _, s := range opts.Filters.Get("until") {
		t, err := filter.ParseTime(s, time.Now())
		if err != nil {
			return nil, err
		}
		sel.setBefore(t)
	}
	for _, ref := range opts.Filters.Get("since") {
		created, err := m.created(ref)
		if err != nil {
			return nil, err
		}
		if created.After(sel.since) {
			sel.since = created
		}
	}
	return sel, nil
}

func (sel *selection) setBefore(t time.Time) {
	if sel.before.IsZero() || t.Before(sel.before) {
		sel.before = t
	}
}

// created is when the image was made.
func (m *Manager) created(ref string) (time.Time, error) {
	_, config, err := m.resolve(ref, nil)
	if err != nil {
		return time.Time{}, err
	}
	return createdOf(config), nil
}

func createdOf(config *dockerspec.DockerOCIImage) time.Time {
	if config.Created == nil {
		return time.Time{}
	}
	return *config.Created
}

// summary describes one image, if it is among those asked for.
func (sel *selection) summary(e *entry, config *dockerspec.DockerOCIImage, keys []string, isParent bool) (s image.Summary, ok bool) {
	created := createdOf(config)
	if !sel.before.IsZero() && !created.Before(sel.before) || !sel.since.IsZero() && !created.After(sel.since) ||
		!sel.opts.Filters.MatchKV("label", config.Config.Labels) {
		return s, false
	}
	tags, digests := sel.names(keys)
	unnamed := len(tags) == 0 && len(digests) == 0
	switch {
	case unnamed && (sel.opts.Filters.Has("reference") || isParent && !sel.opts.All):
		return s, false
	case sel.opts.Filters.Has("dangling") && sel.dangling != (len(tags) == 0):
		return s, false
	case sel.dangling && isParent:
		return s, false
	}
	s = image.Summary{
		ID:          e.id.String(),
		ParentID:    e.Parent.String(),
		RepoTags:    tags,
		RepoDigests: digests,
		Size:        e.size(),
		SharedSize:  -1,
		Containers:  -1,
		Labels:      config.Config.Labels,
	}
	if !created.IsZero() {
		s.Created = created.Unix()
	}
	return s, true
}

// names are the image's names that pass the filter.
func (sel *selection) names(keys []string) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, key := range keys {
		if !matchReference(sel.opts.Filters.Get("reference"), key) {
			continue
		}
		if isDigestKey(key) {
			digests = append(digests, familiar(key))
		} else {
			tags = append(tags, familiar(key))
		}
	}
	return tags, digests
}

func matchReference(patterns []string, key string) bool {
	if len(patterns) == 0 {
		return true
	}
	named, err := reference.ParseNormalizedNamed(key)
	if err != nil {
		return false
	}
	for _, pattern := range patterns {
		if ok, err := reference.FamiliarMatch(pattern, named); ok && err == nil {
			return true
		}
	}
	return false
}

// totalOf is what an image's manifests take on the disk: shown above them, its
// size must not be less than theirs.
func totalOf(list []image.ManifestSummary) (size int64) {
	for i := range list {
		size += list[i].Size.Total
	}
	return size
}

// shareSizes fills in how much of each image other images have as well.
func shareSizes(list []image.Summary, entries []*entry) {
	count := map[digest.Digest]int{}
	byID := map[string]*entry{}
	for _, e := range entries {
		byID[e.id.String()] = e
		for _, id := range slices.Compact(slices.Sorted(slices.Values(e.diffIDs()))) {
			count[id]++
		}
	}
	for i := range list {
		list[i].SharedSize = 0
		for _, l := range byID[list[i].ID].Layers {
			if count[l.DiffID] > 1 {
				list[i].SharedSize += l.Size
			}
		}
	}
}

// Count returns how many images there are.
func (m *Manager) Count() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.byID)
}
