package rtnl

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LinkInfo is what there is to know of a link.
type LinkInfo struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth"; empty for hardware
	MAC    net.HardwareAddr
	MTU    int
	Master int // index of the bridge, 0 for none
	Up     bool
}

// Links returns all links of the namespace.
func (c *Conn) Links() ([]LinkInfo, error) {
	var b Batch
	b.open("list the interfaces", unix.RTM_GETLINK, unix.NLM_F_DUMP)
	put(&b, &unix.IfInfomsg{})
	b.shut()
	var links []LinkInfo
	err := c.dump(&b, func(body []byte) {
		if len(body) < unix.SizeofIfInfomsg {
			return
		}
		msg := (*unix.IfInfomsg)(unsafe.Pointer(&body[0]))
		l := LinkInfo{Index: int(msg.Index), Up: msg.Flags&unix.IFF_UP != 0}
		for kind, value := range attrs(body[unix.SizeofIfInfomsg:]) {
			l.set(kind, value)
		}
		links = append(links, l)
	})
	return links, err
}

func (l *LinkInfo) set(kind uint16, value []byte) {
	switch kind {
	case unix.IFLA_IFNAME:
		l.Name = cstring(value)
	case unix.IFLA_ADDRESS:
		l.MAC = append(net.HardwareAddr(nil), value...)
	case unix.IFLA_MTU:
		l.MTU = number(value)
	case unix.IFLA_MASTER:
		l.Master = number(value)
	case unix.IFLA_LINKINFO:
		for kind, value := range attrs(value) {
			if kind == unix.IFLA_INFO_KIND {
				l.Kind = cstring(value)
			}
		}
	}
}

func number(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}

// AddrInfo is an address of a link, with the length of its network's prefix.
type AddrInfo struct {
	Index int
	Addr  netip.Prefix
}

// Addrs returns all IPv4 and IPv6 addresses of the namespace.
func (c *Conn) Addrs() ([]AddrInfo, error) {
	var b Batch
	b.open("list the addresses", unix.RTM_GETADDR, unix.NLM_F_DUMP)
	put(&b, &unix.IfAddrmsg{})
	b.shut()
	var addrs []AddrInfo
	err := c.dump(&b, func(body []byte) {
		if len(body) < unix.SizeofIfAddrmsg {
			return
		}
		msg := (*unix.IfAddrmsg)(unsafe.Pointer(&body[0]))
		var local, far netip.Addr
		for kind, value := range attrs(body[unix.SizeofIfAddrmsg:]) {
			switch kind {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(value)
			case unix.IFA_ADDRESS:
				far, _ = netip.AddrFromSlice(value)
			}
		}
		if !local.IsValid() {
			local = far
		}
		if local.IsValid() {
			addrs = append(addrs, AddrInfo{int(msg.Index), netip.PrefixFrom(local, int(msg.Prefixlen))})
		}
	})
	return addrs, err
}

// RouteInfo is where a route leads, and the index of the link it takes.
type RouteInfo struct {
	Index int // 0 where it takes several
	Dst   netip.Prefix
}

// Routes returns all unicast IPv4 routes; a default route is to 0.0.0.0/0.
func (c *Conn) Routes() ([]RouteInfo, error) {
	var b Batch
	b.open("list the routes", unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	put(&b, &unix.RtMsg{Family: unix.AF_INET})
	b.shut()
	var routes []RouteInfo
	err := c.dump(&b, func(body []byte) {
		if len(body) < unix.SizeofRtMsg {
			return
		}
		msg := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
		if msg.Type != unix.RTN_UNICAST {
			return
		}
		index, dst := 0, netip.IPv4Unspecified()
		for kind, value := range attrs(body[unix.SizeofRtMsg:]) {
			switch kind {
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(value)
			case unix.RTA_OIF:
				index = number(value)
			}
		}
		routes = append(routes, RouteInfo{index, netip.PrefixFrom(dst, int(msg.Dst_len))})
	})
	return routes, err
}
