package network

import (
	"net"
	"net/netip"

	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/network/firewall"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// endpoint is the record of one connected container.
type endpoint struct {
	ContainerID string
	Name        string
	Network     string // its name
	NetworkID   string
	EndpointID  string
	SandboxID   string
	IP          netip.Addr                `json:",omitzero"`
	MAC         string                    `json:",omitempty"`
	Link        string                    `json:",omitempty"` // the host's end of the veth
	Exposed     []network.Port            `json:",omitempty"`
	Mappings    []portproxy.Mapping       `json:",omitempty"`
	Settings    *network.EndpointSettings `json:",omitempty"` // as asked for
}

func (m *Manager) newEndpoint(req *ConnectRequest, name string) *endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &endpoint{
		ContainerID: req.ContainerID, Name: req.Name, Network: name, NetworkID: m.networks[name].ID,
		EndpointID: newID(), SandboxID: newID(), Settings: req.Endpoint,
	}
	for port := range req.Exposed {
		e.Exposed = append(e.Exposed, port)
	}
	for port := range req.Bindings {
		if _, ok := req.Exposed[port]; !ok && port.IsValid() {
			e.Exposed = append(e.Exposed, port)
		}
	}
	return e
}

// checkMAC refuses what cannot be the address of one machine.
func checkMAC(s *network.EndpointSettings) error {
	if s == nil || len(s.MacAddress) == 0 {
		return nil
	}
	switch mac := net.HardwareAddr(s.MacAddress); {
	case len(mac) != 6:
		return errs.InvalidArgument("invalid MAC address %s: it must have 6 bytes", mac)
	case mac[0]&1 != 0:
		return errs.InvalidArgument("invalid MAC address %s: it is a multicast address", mac)
	}
	return nil
}

// macOf derives a hardware address as Docker did for most of its life, so that
// an address that is given again is at the same one in everybody's ARP cache.
func macOf(ip netip.Addr) net.HardwareAddr {
	a := ip.As4()
	return net.HardwareAddr{0x02, 0x42, a[0], a[1], a[2], a[3]}
}

// settings is the endpoint as inspect shows it.
func (m *Manager) settings(e *endpoint) *network.EndpointSettings {
	s := e.Settings.Copy()
	if s == nil {
		s = &network.EndpointSettings{}
	}
	s.NetworkID, s.EndpointID = e.NetworkID, e.EndpointID
	if e.IP.IsValid() {
		m.mu.Lock()
		gateway := m.networks[bridgeNetwork].prefix()
		m.mu.Unlock()
		s.IPAddress, s.IPPrefixLen, s.Gateway = e.IP, gateway.Bits(), gateway.Addr()
		mac, _ := net.ParseMAC(e.MAC)
		s.MacAddress = network.HardwareAddr(mac)
	}
	return s
}

// Rename tells that the container has another name.
func (m *Manager) Rename(containerID, name string) error {
	m.mu.Lock()
	e := m.endpoints[containerID]
	if e == nil {
		m.mu.Unlock()
		return nil
	}
	renamed := *e
	renamed.Name = name
	m.endpoints[containerID] = &renamed
	m.mu.Unlock()
	return m.ends.PutVolatile(containerID, &renamed)
}

// firewallPorts are the mappings the firewall serves: those of IPv4 addresses
// other machines can reach.
func firewallPorts(e *endpoint) []firewall.Port {
	var ports []firewall.Port
	for _, p := range e.Mappings {
		host, err := netip.ParseAddr(p.HostIP)
		if err != nil || !host.Is4() || host.IsLoopback() {
			continue
		}
		ports = append(ports, firewall.Port{
			Proto: p.Proto, HostIP: host, Host: p.HostPort,
			Target: netip.AddrPortFrom(e.IP, p.TargetPort), Owner: short(e.ContainerID),
		})
	}
	return ports
}
