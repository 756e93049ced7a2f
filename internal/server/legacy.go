package server

// The types of this file are answers as clients of API 1.51 and older expect
// them. Each embeds the newest type; its own fields hide those of the same name
// there, or are fields that later versions no longer have.

import (
	"slices"

	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

type legacyContainerInspect struct {
	*ctypes.InspectResponse
	GraphDriver     storage.DriverData
	Config          legacyConfig
	NetworkSettings legacyNetworkSettings
}

type legacyConfig struct {
	*ctypes.Config
	OnBuild    []string
	MacAddress string `json:",omitempty"`
}

// legacyNetworkSettings repeats the default bridge's endpoint at the top.
type legacyNetworkSettings struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  network.PortMap
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []struct{}
	SecondaryIPv6Addresses []struct{}
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]*network.EndpointSettings
}

func legacyContainer(r *request, c *ctypes.InspectResponse) *legacyContainerInspect {
	answer := &legacyContainerInspect{InspectResponse: c, Config: legacyConfig{Config: c.Config}}
	if c.Config == nil {
		answer.Config.Config = &ctypes.Config{}
	}
	answer.Config.OnBuild = answer.Config.Config.OnBuild
	if c.GraphDriver != nil {
		answer.GraphDriver = *c.GraphDriver
	}
	c.Storage = nil // came with API 1.52
	if c.HostConfig != nil {
		c.HostConfig.Umask = nil // came with API 1.56
	}
	if r.before(1_48) {
		c.ImageManifestDescriptor = nil
	}
	if n := c.NetworkSettings; n != nil {
		if r.before(1_45) {
			addOldAliases(c, n)
		}
		answer.NetworkSettings = legacySettings(n)
	}
	return answer
}

// addOldAliases adds what containers were also called on networks with names.
func addOldAliases(c *ctypes.InspectResponse, n *ctypes.NetworkSettings) {
	for name, ep := range n.Networks {
		if ep == nil || !ctypes.NetworkMode(name).IsUserDefined() {
			continue
		}
		ep = ep.Copy()
		n.Networks[name] = ep
		for _, alias := range []string{c.ID[:min(12, len(c.ID))], c.Config.Hostname} {
			if !slices.Contains(ep.Aliases, alias) {
				ep.Aliases = append(ep.Aliases, alias)
			}
		}
	}
}

func legacySettings(n *ctypes.NetworkSettings) legacyNetworkSettings {
	s := legacyNetworkSettings{SandboxID: n.SandboxID, SandboxKey: n.SandboxKey, Ports: n.Ports, Networks: n.Networks}
	if s.Ports == nil {
		s.Ports = network.PortMap{}
	}
	ep := n.Networks[network.NetworkBridge]
	if ep == nil {
		return s
	}
	s.EndpointID, s.MacAddress = ep.EndpointID, ep.MacAddress.String()
	s.IPPrefixLen, s.GlobalIPv6PrefixLen = ep.IPPrefixLen, ep.GlobalIPv6PrefixLen
	for _, a := range []struct {
		to   *string
		from interface {
			IsValid() bool
			String() string
		}
	}{{&s.IPAddress, ep.IPAddress}, {&s.Gateway, ep.Gateway}, {&s.GlobalIPv6Address, ep.GlobalIPv6Address}, {&s.IPv6Gateway, ep.IPv6Gateway}} {
		if a.from.IsValid() {
			*a.to = a.from.String()
		}
	}
	return s
}

type legacySummary struct {
	*ctypes.Summary
	Ports []legacyPort
}

// legacyPort leaves the address out where there is none.
type legacyPort struct {
	IP          string `json:",omitempty"`
	PrivatePort uint16
	PublicPort  uint16 `json:",omitempty"`
	Type        string
}

func legacySummaries(r *request, list []ctypes.Summary) []legacySummary {
	answer := make([]legacySummary, len(list))
	for i := range list {
		c := &list[i]
		c.Health = nil // came with API 1.52
		if r.before(1_46) {
			c.HostConfig.Annotations = nil
		}
		if r.before(1_48) {
			c.ImageManifestDescriptor = nil
		}
		answer[i] = legacySummary{Summary: c, Ports: make([]legacyPort, len(c.Ports))}
		for j, p := range c.Ports {
			port := legacyPort{PrivatePort: p.PrivatePort, PublicPort: p.PublicPort, Type: p.Type}
			if p.IP.IsValid() {
				port.IP = p.IP.String()
			}
			answer[i].Ports[j] = port
		}
	}
	return answer
}

type legacyNetworkInspect struct {
	network.Network
	Containers map[string]network.EndpointResource
	Services   map[string]network.ServiceInfo `json:",omitempty"`
}

func legacyNetwork(n *network.Inspect) *legacyNetworkInspect {
	answer := &legacyNetworkInspect{Network: n.Network, Containers: n.Containers, Services: n.Services}
	if answer.Containers == nil {
		answer.Containers = map[string]network.EndpointResource{}
	}
	return answer
}

func legacyNetworks(list []network.Summary) []*legacyNetworkInspect {
	answer := make([]*legacyNetworkInspect, len(list))
	for i := range list {
		answer[i] = legacyNetwork(&network.Inspect{Network: list[i].Network})
	}
	return answer
}

// legacyMessage repeats the newer fields under their first names. Clients
// panic where these are missing.
type legacyMessage struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	*events.Message
}

func legacyEvent(m *events.Message) *legacyMessage {
	answer := &legacyMessage{Message: m}
	switch m.Type {
	case events.ContainerEventType:
		answer.Status, answer.ID, answer.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case events.ImageEventType:
		answer.Status, answer.ID = string(m.Action), m.Actor.ID
	}
	return answer
}
