package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// portTable is which host ports the containers of this instance hold.
type portTable struct {
	held map[portKey][]holding
	last uint16 // the ephemeral port given last
}

type portKey struct {
	proto string
	port  uint16
}

type holding struct {
	ip    netip.Addr
	owner string // container ID
}

// wish is one binding as it was asked for.
type wish struct {
	port        network.Port
	hosts       []netip.Addr // one, or both unspecified ones
	first, last uint16       // of the host; 0 for any ephemeral one
}

// wishes makes the bindings of a request definite and puts them in order:
// fixed ports first, so that no ephemeral one takes theirs.
func wishes(req *ConnectRequest, v6 bool) ([]wish, error) {
	var all []wish
	for port, bindings := range req.Bindings {
		if !port.IsValid() || port.Num() == 0 {
			return nil, errs.InvalidArgument("invalid container port: %s", port)
		}
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			w, err := newWish(port, b, v6)
			if err != nil {
				return nil, err
			}
			all = append(all, w)
		}
	}
	if req.PublishAll {
		for port := range req.Exposed {
			if len(req.Bindings[port]) == 0 && port.IsValid() {
				all = append(all, wish{port: port, hosts: everywhere(v6)})
			}
		}
	}
	slices.SortFunc(all, func(a, b wish) int {
		return cmp.Or(
			cmp.Compare(b2i(a.dynamic()), b2i(b.dynamic())),
			cmp.Compare(a.first, b.first),
			cmp.Compare(a.port.Num(), b.port.Num()),
			cmp.Compare(a.port.Proto(), b.port.Proto()))
	})
	return all, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (w wish) dynamic() bool { return w.first != w.last || w.first == 0 }

func everywhere(v6 bool) []netip.Addr {
	if v6 {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified()}
}

func newWish(port network.Port, b network.PortBinding, v6 bool) (wish, error) {
	w := wish{port: port, hosts: everywhere(v6)}
	if b.HostIP.IsValid() {
		w.hosts = []netip.Addr{b.HostIP.Unmap()}
	}
	if b.HostPort == "" {
		return w, nil
	}
	first, last, isRange := strings.Cut(b.HostPort, "-")
	if !isRange {
		last = first
	}
	lo, err1 := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || hi < lo || lo == 0 && hi != 0 {
		return w, errs.InvalidArgument("invalid host port %q for container port %s", b.HostPort, port)
	}
	w.first, w.last = uint16(lo), uint16(hi)
	return w, nil
}

// conflict returns the container that keeps others from the port, if any.
func (t *portTable) conflict(proto string, host netip.Addr, port uint16) (owner string, taken bool) {
	for _, h := range t.held[portKey{proto, port}] {
		if h.ip.Is4() == host.Is4() && (h.ip == host || h.ip.IsUnspecified() || host.IsUnspecified()) {
			return h.owner, true
		}
	}
	return "", false
}

func (t *portTable) reserve(owner string, list []portproxy.Mapping) {
	if t.held == nil {
		t.held = map[portKey][]holding{}
	}
	for _, p := range list {
		ip, _ := netip.ParseAddr(p.HostIP)
		key := portKey{p.Proto, p.HostPort}
		t.held[key] = append(t.held[key], holding{ip, owner})
	}
}

func (t *portTable) release(owner string, list []portproxy.Mapping) {
	for _, p := range list {
		key := portKey{p.Proto, p.HostPort}
		t.held[key] = slices.DeleteFunc(t.held[key], func(h holding) bool { return h.owner == owner })
		if len(t.held[key]) == 0 {
			delete(t.held, key)
		}
	}
}

// allocate picks the host ports and reserves them for the owner. It is called
// with Manager.mu held.
func (m *Manager) allocate(e *endpoint, list []wish) error {
	var got []portproxy.Mapping
	for _, w := range list {
		port, err := m.pick(e, w)
		if err != nil {
			m.ports.release(e.ContainerID, got)
			return err
		}
		for _, host := range w.hosts {
			p := portproxy.Mapping{
				Proto: string(w.port.Proto()), HostIP: host.String(), HostPort: port,
				TargetIP: e.IP.String(), TargetPort: w.port.Num(), Name: e.Name,
			}
			got = append(got, p)
			m.ports.reserve(e.ContainerID, []portproxy.Mapping{p})
		}
	}
	e.Mappings = got
	return nil
}

// pick finds a port that suits the wish on all its addresses.
func (m *Manager) pick(e *endpoint, w wish) (uint16, error) {
	proto := string(w.port.Proto())
	if proto == "sctp" && !hasSCTP() {
		return 0, errs.NotImplemented("cannot publish port %s: this kernel does not track SCTP connections", w.port)
	}
	if !w.dynamic() {
		for _, host := range w.hosts {
			if owner, taken := m.ports.conflict(proto, host, w.first); taken {
				return 0, errs.Conflict("Bind for %s failed: port is already allocated by container %q", addrPort(host, w.first), m.nameOf(owner, e))
			}
		}
		return w.first, nil
	}
	if w.first != 0 {
		for port := int(w.first); port <= int(w.last); port++ {
			if m.usable(proto, w.hosts, uint16(port)) {
				return uint16(port), nil
			}
		}
		return 0, errs.Conflict("Bind for %s failed: every port of the range %d-%d is already allocated", w.hosts[0], w.first, w.last)
	}
	lo, hi := ephemeral()
	for i, port := 0, max(m.ports.last, lo-1); i <= int(hi-lo); i++ {
		if port++; port > hi || port < lo {
			port = lo
		}
		if m.usable(proto, w.hosts, port) {
			m.ports.last = port
			return port, nil
		}
	}
	return 0, errs.Unavailable("all ports are allocated: none of %d-%d is free for container port %s", lo, hi, w.port)
}

func (m *Manager) nameOf(owner string, self *endpoint) string {
	if owner == self.ContainerID {
		return self.Name
	}
	if e := m.endpoints[owner]; e != nil && e.Name != "" {
		return e.Name
	}
	return short(owner)
}

func (m *Manager) usable(proto string, hosts []netip.Addr, port uint16) bool {
	for _, host := range hosts {
		if _, taken := m.ports.conflict(proto, host, port); taken || !bindable(proto, host, port) {
			return false
		}
	}
	return true
}

// bindable tries the port out. Between this and the real listening another
// program may take it, which is then an error like any other.
func bindable(proto string, host netip.Addr, port uint16) bool {
	if proto == "sctp" {
		return true
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(port), Addr: host.As16()})
	if host.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: host.As4()}
	}
	kind := unix.SOCK_STREAM
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if proto == "tcp" {
		// As the relay does: only a listening socket is in the way.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	return unix.Bind(fd, sa) == nil
}

// ephemeral returns the range the host gives ports from by itself, as Docker
// does.
func ephemeral() (lo, hi uint16) {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if n, _ := fmt.Sscan(string(data), &lo, &hi); n == 2 && 0 < lo && lo <= hi {
			return lo, hi
		}
	}
	return 32768, 60999
}

// hasSCTP tells whether the kernel can send SCTP on to a container.
func hasSCTP() bool {
	_, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established")
	return err == nil
}

// hasIPv6 tells whether the host can be reached over IPv6 at all, as Docker
// finds out: by the loopback address.
func hasIPv6() bool {
	return bindable("tcp", netip.IPv6Loopback(), 0)
}

// portMap is how the API shows what is published; an exposed port without a
// binding is there with none.
func portMap(exposed network.PortSet, list []portproxy.Mapping) network.PortMap {
	ports := network.PortMap{}
	for port := range exposed {
		ports[port] = nil
	}
	for _, p := range list {
		if port, ok := network.PortFrom(p.TargetPort, network.IPProtocol(p.Proto)); ok {
			ip, _ := netip.ParseAddr(p.HostIP)
			ports[port] = append(ports[port], network.PortBinding{HostIP: ip, HostPort: strconv.Itoa(int(p.HostPort))})
		}
	}
	return ports
}
