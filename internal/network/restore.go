package network

import (
	"context"
	"errors"
	"strings"

	"github.com/gantry-containers/gantry/internal/network/rtnl"
)

// Restore is called once after the daemon has started, with the IDs of the
// containers that still run. What was set up for them is completed where it is
// damaged; all that was set up for others is released.
func (m *Manager) Restore(ctx context.Context, live map[string]struct{}) error {
	m.mu.Lock()
	var kept, dead []*endpoint
	for id, e := range m.endpoints {
		if _, ok := live[id]; ok {
			kept = append(kept, e)
			continue
		}
		dead = append(dead, e)
		delete(m.endpoints, id)
	}
	m.mu.Unlock()
	var all []error
	for _, e := range dead {
		all = append(all, m.bury(ctx, e))
	}
	all = append(all, m.sweepLinks(false), m.restoreTable(kept))
	for _, e := range kept {
		if len(e.Mappings) > 0 {
			// The shim has them, unless it was killed as well.
			all = append(all, m.setPorts(ctx, e.ContainerID, e.Mappings))
		}
	}
	return errors.Join(all...)
}

// bury releases an endpoint but for its link and its elements of the firewall,
// which are dealt with all at once.
func (m *Manager) bury(ctx context.Context, e *endpoint) error {
	var err error
	if len(e.Mappings) > 0 {
		err = m.setPorts(ctx, e.ContainerID, nil)
	}
	err2 := m.ends.Delete(e.ContainerID)
	m.release(e)
	return errors.Join(err, err2)
}

// restoreTable brings the table up to date, or away when nobody needs it.
func (m *Manager) restoreTable(kept []*endpoint) error {
	m.setup.Lock()
	m.ready = false
	m.setup.Unlock()
	for _, e := range kept {
		if e.Network == bridgeNetwork {
			_, err := m.ensure()
			return err
		}
	}
	return m.table.Delete()
}

// sweepLinks removes the links of this instance that belong to no container, or
// really all of them.
func (m *Manager) sweepLinks(really bool) error {
	links, err := m.link.Links()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	if !really {
		for _, name := range m.spares.names() {
			keep[name] = true
		}
		m.mu.Lock()
		for _, e := range m.endpoints {
			keep[e.Link] = true
		}
		m.mu.Unlock()
	}
	var all []error
	for _, l := range links {
		if l.Kind == "veth" && strings.HasPrefix(l.Name, m.linkPrefix()) && !keep[l.Name] {
			all = append(all, m.delLink(l.Name))
		}
	}
	return errors.Join(all...)
}

// Purge removes everything of this instance from the kernel, also what belongs
// to running containers, and closes the manager for further use but Close. It
// is for uninstalling, and for tests.
func (m *Manager) Purge(ctx context.Context) error {
	m.spares.drain()
	m.mu.Lock()
	var all []error
	dead := m.endpoints
	m.endpoints = map[string]*endpoint{}
	m.mu.Unlock()
	for _, e := range dead {
		all = append(all, m.bury(ctx, e))
	}
	all = append(all, m.sweepLinks(true))
	m.setup.Lock()
	defer m.setup.Unlock()
	m.ready = false
	if links, err := m.link.Links(); err != nil {
		all = append(all, err)
	} else if has(links, m.BridgeName()) {
		all = append(all, m.delLink(m.BridgeName()))
	}
	all = append(all, m.table.Delete())
	return errors.Join(all...)
}

// has tells whether there is a bridge of that name. A link of another kind that
// somebody gave our name is not ours to remove.
func has(links []rtnl.LinkInfo, name string) bool {
	for _, l := range links {
		if l.Name == name && l.Kind == "bridge" {
			return true
		}
	}
	return false
}
