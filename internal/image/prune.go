package image

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"

	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/filter"
)

// Prune removes the images no container uses: those without a tag, or with the
// filter dangling=false all of them. What interrupted pulls left goes when it
// is old, or with all images.
func (m *Manager) Prune(ctx context.Context, filters filter.Args) (*image.PruneReport, error) {
	if err := filters.Validate("dangling", "label", "label!", "until"); err != nil {
		return nil, err
	}
	danglingOnly, err := filters.Bool("dangling", true)
	if err != nil {
		return nil, err
	}
	until, err := filters.Until(time.Now())
	if err != nil {
		return nil, err
	}
	before, err := m.measure(ctx)
	if err != nil {
		return nil, err
	}
	report := &image.PruneReport{}
	for _, e := range m.prunable(danglingOnly, until, filters) {
		if ctx.Err() != nil {
			break // what was done is told
		}
		done, err := m.pruneOne(ctx, e)
		report.ImagesDeleted = append(report.ImagesDeleted, done...)
		if err != nil && !errors.Is(err, errdefs.ErrConflict) && !errors.Is(err, errdefs.ErrNotFound) {
			return report, err
		}
	}
	old := time.Now()
	if danglingOnly || !until.IsZero() {
		old = old.Add(-content.PartialAge)
	}
	parts, err := m.opts.Content.DropPartials(old)
	if err != nil {
		return report, err
	}
	after, err := m.measure(context.WithoutCancel(ctx))
	if err != nil {
		return report, err
	}
	report.SpaceReclaimed = uint64(parts + before.without(after))
	if m.opts.Events != nil {
		m.opts.Events.Publish(events.Message{Type: events.ImageEventType, Action: events.ActionPrune,
			Actor: events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}}})
	}
	return report, nil
}

// prunable lists the candidates.
func (m *Manager) prunable(danglingOnly bool, until time.Time, filters filter.Args) (list []*entry) {
	var candidates []*entry
	m.mu.RLock()
	for _, e := range m.byID {
		if tags, _ := m.names(e.id); !danglingOnly || len(tags) == 0 {
			candidates = append(candidates, e)
		}
	}
	m.mu.RUnlock()
	for _, e := range candidates {
		if len(m.opts.InUse(e.id)) > 0 {
			continue
		}
		config, err := e.config()
		if err != nil {
			continue
		}
		if !until.IsZero() && (config.Created == nil || config.Created.After(until)) {
			continue
		}
		if filters.MatchLabels(config.Config.Labels) {
			list = append(list, e)
		}
	}
	return list
}

// pruneOne removes an image with all its names, unless it came into use.
func (m *Manager) pruneOne(ctx context.Context, e *entry) (done []image.DeleteResponse, err error) {
	m.mu.RLock()
	keys := m.references(e.id)
	m.mu.RUnlock()
	if len(keys) == 0 {
		return m.Remove(ctx, e.id.String(), RemoveOptions{})
	}
	for _, key := range keys {
		m.mu.RLock()
		_, there := m.byRef[key]
		m.mu.RUnlock()
		if !there {
			continue // went with another
		}
		more, err := m.Remove(ctx, key, RemoveOptions{})
		done = append(done, more...)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
