package network

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/network/firewall"
	"github.com/gantry-containers/gantry/internal/network/rtnl"
)

// ensure makes the bridge and the table where they are missing, and returns the
// index of the bridge. Somebody may have removed the bridge since the last time.
func (m *Manager) ensure() (bridge int, err error) {
	m.setup.Lock()
	defer m.setup.Unlock()
	if m.ready {
		if index, err := m.link.Index(m.BridgeName()); err == nil && index == m.bridge {
			return index, nil
		}
	}
	if err := m.ensureBridge(); err != nil {
		return 0, err
	}
	if err := m.rewrite(); err != nil {
		return 0, err
	}
	forwarding()
	m.ready = true
	if m.watcher == nil {
		// Without it the next change of the table repairs it.
		m.watcher, _ = firewall.Watch(m.repair)
	}
	return m.bridge, nil
}

// repair makes the table anew after somebody has removed it.
func (m *Manager) repair() {
	m.setup.Lock()
	defer m.setup.Unlock()
	if !m.ready {
		return
	}
	if there, err := m.table.Exists(); err == nil && !there {
		m.rewrite() // when it fails, the next change tries again and tells
	}
}

// ensureBridge finds the bridge or makes it. It is called with setup held.
func (m *Manager) ensureBridge() error {
	name := m.BridgeName()
	index, err := m.link.Index(name)
	if err == nil && !m.inUse() && m.misconfigured(index) {
		// It is of another configuration, and nobody is on it.
		if err := m.delLink(name); err != nil {
			return err
		}
		err = unix.ENODEV
	}
	if errors.Is(err, unix.ENODEV) {
		defer lockHost()()
		if err := m.settle(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	addr := m.networks[bridgeNetwork].prefix()
	m.mu.Unlock()
	var b rtnl.Batch
	if errors.Is(err, unix.ENODEV) {
		b.AddBridge(rtnl.Link{Name: name, MAC: randomMAC(), MTU: m.MTU})
		if err := m.link.Do(&b); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		index, err = m.link.Index(name)
	}
	if err != nil {
		return err
	}
	b = rtnl.Batch{}
	b.AddAddr(index, addr, true)
	b.Up(index)
	if err := m.link.Do(&b); err != nil {
		return fmt.Errorf("cannot set up bridge %s: %w", name, err)
	}
	m.bridge = index
	return nil
}

// inUse tells whether a container has an address on the bridge.
func (m *Manager) inUse() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.addresses.taken) > 1 // that of the host
}

// settle makes sure, before the bridge is made, that its subnet is still free:
// another engine may have chosen the same while neither had its bridge, or the
// machine has moved to another network. A configured subnet is kept.
func (m *Manager) settle() error {
	if m.BridgeAddr.IsValid() || m.inUse() {
		return nil
	}
	used, err := m.usedSubnets()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.networks[bridgeNetwork]
	if free(old.prefix().Masked(), used) {
		return nil
	}
	addr, err := m.chooseBridgeAddr(nil)
	if err != nil {
		return err
	}
	moved := *old
	moved.setPrefix(addr)
	m.addresses = newPool(addr)
	return m.store(&moved)
}

// misconfigured tells whether the bridge has other IPv4 addresses than ours.
func (m *Manager) misconfigured(index int) bool {
	addrs, err := m.link.Addrs()
	if err != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addrs {
		if a.Index == index && a.Addr.Addr().Is4() && a.Addr != m.networks[bridgeNetwork].prefix() {
			return true
		}
	}
	return false
}

// randomMAC is the bridge's own: without one it would take that of a container,
// and change it when that one goes.
func randomMAC() net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	rand.Read(mac[2:])
	return mac
}

func (m *Manager) delLink(name string) error {
	var b rtnl.Batch
	b.DelLink(name)
	if err := m.link.Do(&b); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// rewrite makes the table anew from what is known. It is called with setup held.
func (m *Manager) rewrite() error {
	m.mu.Lock()
	addr := m.networks[bridgeNetwork].prefix()
	var ports []firewall.Port
	for _, e := range m.endpoints {
		ports = append(ports, firewallPorts(e)...)
	}
	m.mu.Unlock()
	return m.table.Replace([]firewall.Bridge{{
		Name: m.BridgeName(), Subnet: addr.Masked(), ICC: true, Masquerade: true,
	}}, ports)
}

// addPorts and removePorts change the elements of the endpoint. Where the table
// is not as it should be, somebody has flushed it, and all of it is made anew.
func (m *Manager) addPorts(e *endpoint) error {
	m.setup.Lock()
	defer m.setup.Unlock()
	if m.table.Add(firewallPorts(e)) == nil {
		return nil
	}
	return m.rewrite()
}

func (m *Manager) removePorts(e *endpoint) error {
	m.setup.Lock()
	defer m.setup.Unlock()
	if m.table.Remove(firewallPorts(e)) == nil {
		return nil
	}
	return m.rewrite()
}

const forwardFile = "/proc/sys/net/ipv4/ip_forward"

// forwarding makes the host pass packets on. It stays on: whoever came to rely
// on it meanwhile must not lose it. Where it cannot be had, Warnings tells.
func forwarding() {
	if off(forwardFile) {
		os.WriteFile(forwardFile, []byte("1"), 0)
	}
}

// off tells whether the kernel's setting is there and is 0.
func off(file string) bool {
	data, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(data)) == "0"
}

// Warnings says what keeps networks from working as they should, for info.
func (m *Manager) Warnings() []string {
	var warnings []string
	m.setup.Lock()
	ready := m.ready
	m.setup.Unlock()
	if ready && off(forwardFile) {
		warnings = append(warnings, "WARNING: IPv4 forwarding is disabled: containers reach nothing outside this host")
	}
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		if off("/proc/sys/net/bridge/" + name) {
			warnings = append(warnings, "WARNING: "+name+" is disabled")
		}
	}
	droppers, err := m.table.Droppers()
	if err != nil {
		return append(warnings, "WARNING: "+err.Error())
	}
	for _, chain := range droppers {
		warnings = append(warnings, fmt.Sprintf("WARNING: the nftables chain %q drops what is forwarded; containers need a rule there that accepts %s", chain, m.BridgeName()))
	}
	return warnings
}
