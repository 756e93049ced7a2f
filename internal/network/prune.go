package network

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/filter"
)

// Prune removes the networks no container is connected to that pass the filters
// label, label! and until, but for those every engine has. An unknown filter is
// ErrInvalidArgument.
func (m *Manager) Prune(ctx context.Context, f filter.Args) (*network.PruneReport, error) {
	if err := f.Validate("label", "label!", "until"); err != nil {
		return nil, err
	}
	until, err := f.Until(time.Now())
	if err != nil {
		return nil, err
	}
	report := &network.PruneReport{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.networks)) {
		r := m.networks[name]
		if !m.unused(r) || !until.IsZero() && r.Created.After(until) || !f.MatchLabels(r.Labels) {
			continue
		}
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		if err := m.remove(r); err != nil {
			return report, err
		}
		report.NetworksDeleted = append(report.NetworksDeleted, name)
	}
	m.tell(events.ActionPrune, events.Actor{Attributes: map[string]string{"reclaimed": "0"}})
	return report, nil
}

// unused tells whether a network may go: somebody made it, and no container is
// connected. It is called with mu held.
func (m *Manager) unused(r *record) bool {
	if r.predefined() {
		return false
	}
	for _, e := range m.endpoints {
		if e.Network == r.Name {
			return false
		}
	}
	return true
}

// remove forgets a network. It is called with mu held.
func (m *Manager) remove(r *record) error {
	if err := m.nets.Delete(r.Name); err != nil {
		return err
	}
	delete(m.networks, r.Name)
	m.tell(events.ActionDestroy, events.Actor{ID: r.ID, Attributes: map[string]string{"name": r.Name, "type": r.Driver}})
	return nil
}

func (m *Manager) tell(action events.Action, actor events.Actor) {
	if m.Events != nil {
		m.Events.Publish(events.Message{Type: events.NetworkEventType, Action: action, Actor: actor})
	}
}
