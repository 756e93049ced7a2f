package network

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
)

// The names of the networks that always exist.
const (
	bridgeNetwork = "bridge"
	hostNetwork   = "host"
	noneNetwork   = "none"
)

// Keys of the bridge driver's options, as Docker spells them.
const (
	optName    = "com.docker.network.bridge.name"
	optDefault = "com.docker.network.bridge.default_bridge"
	optICC     = "com.docker.network.bridge.enable_icc"
	optMasq    = "com.docker.network.bridge.enable_ip_masquerade"
	optBinding = "com.docker.network.bridge.host_binding_ipv4"
	optMTU     = "com.docker.network.driver.mtu"
)

// predefine makes the records of the three networks every engine has, and
// changes that of the bridge when the configuration did.
func (m *Manager) predefine() error {
	for name, driver := range map[string]string{hostNetwork: "host", noneNetwork: "null"} {
		if m.networks[name] == nil {
			if err := m.store(newRecord(name, driver)); err != nil {
				return err
			}
		}
	}
	b := m.networks[bridgeNetwork]
	if b != nil && m.asConfigured(b) {
		return nil
	}
	addr, err := m.chooseBridgeAddr(b)
	if err != nil {
		return err
	}
	if b == nil {
		b = newRecord(bridgeNetwork, "bridge")
	}
	b.Options = map[string]string{
		optDefault: "true", optICC: "true", optMasq: "true", optBinding: "0.0.0.0",
		optName: m.BridgeName(), optMTU: strconv.Itoa(m.MTU),
	}
	b.setPrefix(addr)
	return m.store(b)
}

// predefined tells the networks every engine has from those somebody made.
func (r *record) predefined() bool {
	return r.Name == bridgeNetwork || r.Name == hostNetwork || r.Name == noneNetwork
}

func newRecord(name, driver string) *record {
	return &record{network.Network{
		Name: name, ID: newID(), Driver: driver, Scope: "local", Created: time.Now().UTC(), EnableIPv4: true,
		IPAM:    network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}}
}

func (m *Manager) store(r *record) error {
	if err := m.nets.Put(r.Name, r); err != nil {
		return err
	}
	m.networks[r.Name] = r
	return nil
}

func (m *Manager) asConfigured(b *record) bool {
	return len(b.IPAM.Config) == 1 && b.Options[optName] == m.BridgeName() && b.Options[optMTU] == strconv.Itoa(m.MTU) &&
		(!m.BridgeAddr.IsValid() || wholeBridgeAddr(m.BridgeAddr) == b.prefix())
}

// prefix returns the host's address on the network, and its subnet.
func (r *record) prefix() netip.Prefix {
	c := r.IPAM.Config[0]
	return netip.PrefixFrom(c.Gateway, c.Subnet.Bits())
}

func (r *record) setPrefix(p netip.Prefix) {
	r.IPAM.Config = []network.IPAMConfig{{Subnet: p.Masked(), Gateway: p.Addr()}}
}

// wholeBridgeAddr makes the first address the host's where only the subnet was
// given.
func wholeBridgeAddr(p netip.Prefix) netip.Prefix {
	if p.Addr() == p.Masked().Addr() {
		return netip.PrefixFrom(p.Addr().Next(), p.Bits())
	}
	return p
}

// chooseBridgeAddr returns the configured address, the one of the old record,
// or the first that overlaps nothing the host can reach.
func (m *Manager) chooseBridgeAddr(old *record) (netip.Prefix, error) {
	if a := m.BridgeAddr; a.IsValid() {
		if !a.Addr().Is4() || a.Bits() > 30 || a.Bits() < 8 {
			return a, errs.InvalidArgument("invalid address of the default bridge %s: it must be an IPv4 address with a prefix of 8 to 30 bits", a)
		}
		return wholeBridgeAddr(a), nil
	}
	if old != nil && len(old.IPAM.Config) == 1 {
		return old.prefix(), nil
	}
	used, err := m.usedSubnets()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, p := range candidates() {
		if free(p, used) {
			return wholeBridgeAddr(p), nil
		}
	}
	return netip.Prefix{}, errs.Unavailable("cannot find a subnet for the default bridge: every one of Docker's default address pools overlaps a network of this host; configure one")
}

// candidates are Docker's default address pools, in order.
func candidates() []netip.Prefix {
	var all []netip.Prefix
	for i := byte(17); i <= 31; i++ {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i, 0, 0}), 16))
	}
	for i := 0; i < 256; i += 16 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 0}), 20))
	}
	return all
}

func free(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		// A default route leads everywhere and claims nothing.
		if u.Bits() > 0 && u.Overlaps(p) {
			return false
		}
	}
	return true
}

// usedSubnets are those of the host's addresses and routes, without those of
// our own bridge, which may be left from an earlier life of the instance.
func (m *Manager) usedSubnets() ([]netip.Prefix, error) {
	own, err := m.link.Index(m.BridgeName())
	if err != nil {
		own = -1
	}
	routes, err := m.link.Routes()
	if err != nil {
		return nil, err
	}
	addrs, err := m.link.Addrs()
	if err != nil {
		return nil, err
	}
	var used []netip.Prefix
	for _, r := range routes {
		if r.Index != own {
			used = append(used, r.Dst)
		}
	}
	for _, a := range addrs {
		if a.Addr.Addr().Is4() && a.Index != own {
			used = append(used, a.Addr.Masked())
		}
	}
	return used, nil
}
