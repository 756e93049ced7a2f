package network

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

// List returns the networks that pass the filters, sorted by name. An unknown
// filter is ErrInvalidArgument.
func (m *Manager) List(_ context.Context, f filter.Args) ([]network.Summary, error) {
	if err := f.Validate("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	for _, kind := range f.Get("type") {
		if kind != "builtin" && kind != "custom" {
			return nil, errs.InvalidArgument("invalid filter: 'type'='%s'", kind)
		}
	}
	list := []network.Summary{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.networks {
		if (!f.Has("dangling") || dangling == m.unused(r)) && matches(f, r) {
			list = append(list, network.Summary{Network: r.copy()})
		}
	}
	slices.SortFunc(list, func(a, b network.Summary) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func matches(f filter.Args, r *record) bool {
	kind := "custom"
	if r.predefined() {
		kind = "builtin"
	}
	return f.ExactMatch("driver", r.Driver) && f.Match("id", r.ID) && f.MatchKV("label", r.Labels) &&
		f.Match("name", r.Name) && f.ExactMatch("scope", r.Scope) && f.ExactMatch("type", kind)
}

// copy returns the network as the API shows it, which the caller may change.
func (r *record) copy() network.Network {
	n := r.Network
	n.Options, n.Labels = maps.Clone(r.Options), maps.Clone(r.Labels)
	n.IPAM.Config = slices.Clone(r.IPAM.Config)
	return n
}

// Inspect returns a network by ID, name or the beginning of an ID. It is
// ErrNotFound when there is none, ErrInvalidArgument when several begin so.
func (m *Manager) Inspect(_ context.Context, ref string) (*network.Inspect, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	n := &network.Inspect{Network: r.copy(), Containers: map[string]network.EndpointResource{}}
	for id, e := range m.endpoints {
		if e.Network == r.Name {
			n.Containers[id] = r.resource(e)
		}
	}
	return n, nil
}

// find is called with mu held.
func (m *Manager) find(ref string) (*record, error) {
	var found []*record
	for _, r := range m.networks {
		if r.ID == ref {
			return r, nil
		}
		if ref != "" && strings.HasPrefix(r.ID, ref) {
			found = append(found, r)
		}
	}
	if r := m.networks[ref]; r != nil {
		return r, nil
	}
	switch len(found) {
	case 0:
		return nil, notFound(ref)
	case 1:
		return found[0], nil
	}
	return nil, errs.InvalidArgument("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(found))
}

func (r *record) resource(e *endpoint) network.EndpointResource {
	n := network.EndpointResource{Name: e.Name, EndpointID: e.EndpointID}
	if e.IP.IsValid() {
		mac, _ := net.ParseMAC(e.MAC)
		n.MacAddress = network.HardwareAddr(mac)
		n.IPv4Address = netip.PrefixFrom(e.IP, r.prefix().Bits())
	}
	return n
}
