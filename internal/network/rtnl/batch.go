package rtnl

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Batch is a list of requests for one Conn.Do. The zero value is empty.
type Batch struct {
	b     []byte
	start int      // where the open request begins in b
	doing []string // for errors, one for each request
}

const vethInfoPeer = 1 // VETH_INFO_PEER of linux/veth.h

// Link is a new link. Zero fields are left to the kernel.
type Link struct {
	Name   string
	MAC    net.HardwareAddr
	MTU    int
	Master int  // index of the bridge it becomes a port of
	NetNS  int  // descriptor of the namespace it is made in, 0 for that of the Conn
	Up     bool // whether it is switched on
}

// AddVeth asks for a pair of links.
func (b *Batch) AddVeth(host, peer Link) {
	b.open("create the veth pair "+host.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.link(host)
	info := b.nest(unix.IFLA_LINKINFO)
	b.string(unix.IFLA_INFO_KIND, "veth")
	data := b.nest(unix.IFLA_INFO_DATA)
	other := b.nest(vethInfoPeer)
	b.link(peer)
	b.end(other)
	b.end(data)
	b.end(info)
	b.shut()
}

// AddBridge asks for a bridge that is not port of anything.
func (b *Batch) AddBridge(l Link) {
	b.open("create bridge "+l.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.link(l)
	info := b.nest(unix.IFLA_LINKINFO)
	b.string(unix.IFLA_INFO_KIND, "bridge")
	b.end(info)
	b.shut()
}

// link appends an ifinfomsg and its attributes.
func (b *Batch) link(l Link) {
	msg := unix.IfInfomsg{Family: unix.AF_UNSPEC}
	if l.Up {
		msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	}
	put(b, &msg)
	b.string(unix.IFLA_IFNAME, l.Name)
	if l.MAC != nil {
		b.bytes(unix.IFLA_ADDRESS, l.MAC)
	}
	if l.MTU != 0 {
		b.uint32(unix.IFLA_MTU, uint32(l.MTU))
	}
	if l.Master != 0 {
		b.uint32(unix.IFLA_MASTER, uint32(l.Master))
	}
	if l.NetNS != 0 {
		b.uint32(unix.IFLA_NET_NS_FD, uint32(l.NetNS))
	}
}

// Up asks for the link to be switched on.
func (b *Batch) Up(index int) {
	b.open("switch on an interface", unix.RTM_NEWLINK, 0)
	put(b, &unix.IfInfomsg{Index: int32(index), Flags: unix.IFF_UP, Change: unix.IFF_UP})
	b.shut()
}

// SetMAC asks for another hardware address.
func (b *Batch) SetMAC(index int, mac net.HardwareAddr) {
	b.open("set the MAC address "+mac.String(), unix.RTM_NEWLINK, 0)
	put(b, &unix.IfInfomsg{Index: int32(index)})
	b.bytes(unix.IFLA_ADDRESS, mac)
	b.shut()
}

// NoLinkLocal asks the kernel to give the link no IPv6 address of its own.
func (b *Batch) NoLinkLocal(index int) {
	b.open("keep IPv6 off an interface", unix.RTM_NEWLINK, 0)
	put(b, &unix.IfInfomsg{Index: int32(index)})
	spec := b.nest(unix.IFLA_AF_SPEC)
	inet6 := b.nest(unix.AF_INET6)
	b.bytes(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{1 /* IN6_ADDR_GEN_MODE_NONE */})
	b.end(inet6)
	b.end(spec)
	b.shut()
}

// DelLink asks for the named link, and the other end of a veth, to be removed.
func (b *Batch) DelLink(name string) {
	b.open("remove interface "+name, unix.RTM_DELLINK, 0)
	put(b, &unix.IfInfomsg{})
	b.string(unix.IFLA_IFNAME, name)
	b.shut()
}

// AddAddr asks for an address on the link; the one that is there already is no
// error when replace is set.
func (b *Batch) AddAddr(index int, addr netip.Prefix, replace bool) {
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if replace {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	b.open("set the address "+addr.String(), unix.RTM_NEWADDR, flags)
	put(b, &unix.IfAddrmsg{Family: family(addr.Addr()), Prefixlen: uint8(addr.Bits()), Index: uint32(index)})
	b.bytes(unix.IFA_LOCAL, addr.Addr().AsSlice())
	b.bytes(unix.IFA_ADDRESS, addr.Addr().AsSlice())
	if addr.Addr().Is4() {
		b.bytes(unix.IFA_BROADCAST, broadcast(addr))
	}
	b.shut()
}

func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | uint32(1<<(32-p.Bits())-1)
	return binary.BigEndian.AppendUint32(nil, n)
}

// AddDefaultRoute asks for a route to everywhere through the gateway.
func (b *Batch) AddDefaultRoute(gateway netip.Addr) {
	b.open("set the default route through "+gateway.String(), unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	put(b, &unix.RtMsg{Family: family(gateway), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT, Type: unix.RTN_UNICAST})
	b.bytes(unix.RTA_GATEWAY, gateway.AsSlice())
	b.shut()
}

// SetNeighbour tells the kernel which hardware address an address on the link
// has, in place of what it had learned.
func (b *Batch) SetNeighbour(index int, addr netip.Addr, mac net.HardwareAddr) {
	b.open("set the neighbour "+addr.String(), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	put(b, &unix.NdMsg{Family: family(addr), Ifindex: int32(index), State: unix.NUD_STALE})
	b.bytes(unix.NDA_DST, addr.AsSlice())
	b.bytes(unix.NDA_LLADDR, mac)
	b.shut()
}

// SetForwarding tells the bridge at which of its ports a hardware address is,
// in place of what it had learned.
func (b *Batch) SetForwarding(port int, mac net.HardwareAddr) {
	b.open("tell the bridge of "+mac.String(), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	put(b, &unix.NdMsg{Family: unix.AF_BRIDGE, Ifindex: int32(port), State: unix.NUD_REACHABLE, Flags: unix.NTF_MASTER})
	b.bytes(unix.NDA_LLADDR, mac)
	b.shut()
}

// DisablePort asks the bridge to pass nothing to its port or from it.
func (b *Batch) DisablePort(port int) {
	const brportState, disabled = 1, 0 // IFLA_BRPORT_STATE of linux/if_link.h, BR_STATE_DISABLED of linux/if_bridge.h
	b.open("disable a port of the bridge", unix.RTM_SETLINK, 0)
	put(b, &unix.IfInfomsg{Family: unix.AF_BRIDGE, Index: int32(port)})
	info := b.nest(unix.IFLA_PROTINFO)
	b.bytes(brportState, []byte{disabled})
	b.end(info)
	b.shut()
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// open begins a request. The sequence number and the wish for an
// acknowledgement follow in finish.
func (b *Batch) open(doing string, kind, flags uint16) {
	b.start = len(b.b)
	b.doing = append(b.doing, doing)
	put(b, &unix.NlMsghdr{Type: kind, Flags: flags | unix.NLM_F_REQUEST})
}

func (b *Batch) shut() {
	binary.NativeEndian.PutUint32(b.b[b.start:], uint32(len(b.b)-b.start))
}

// finish numbers the requests. Only the last of them is acknowledged: errors
// are always reported, and one answer costs less than one for each.
func (b *Batch) finish(seq uint32) {
	for at := 0; at < len(b.b); seq++ {
		h := (*unix.NlMsghdr)(unsafe.Pointer(&b.b[at]))
		h.Seq = seq
		at += align(int(h.Len))
		if at >= len(b.b) && h.Flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
			h.Flags |= unix.NLM_F_ACK
		}
	}
}

// put appends a C structure without padding at its end.
func put[T any](b *Batch, v *T) {
	b.b = append(b.b, unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))...)
}

func (b *Batch) bytes(kind uint16, value []byte) {
	b.b = binary.NativeEndian.AppendUint16(b.b, uint16(4+len(value)))
	b.b = binary.NativeEndian.AppendUint16(b.b, kind)
	b.b = append(b.b, value...)
	for len(b.b)%4 != 0 {
		b.b = append(b.b, 0)
	}
}

func (b *Batch) string(kind uint16, s string) { b.bytes(kind, append([]byte(s), 0)) }

func (b *Batch) uint32(kind uint16, n uint32) {
	b.bytes(kind, binary.NativeEndian.AppendUint32(nil, n))
}

// nest begins an attribute of attributes, which end completes.
func (b *Batch) nest(kind uint16) int {
	at := len(b.b)
	b.bytes(kind|unix.NLA_F_NESTED, nil)
	return at
}

func (b *Batch) end(at int) {
	binary.NativeEndian.PutUint16(b.b[at:], uint16(len(b.b)-at))
}
