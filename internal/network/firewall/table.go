package firewall

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func newSets(name string) sets {
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
	endpoint := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	set := func(id uint32, name string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: table, ID: id, Name: name, KeyType: key}
	}
	s := sets{
		table:   table,
		bridges: set(1, "bridges", nftables.TypeIFName),
		inside:  set(2, "inside", nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)),
		subnets: set(3, "subnets", nftables.TypeIPAddr),
		ports:   set(4, "ports", nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)),
		portsAt: set(5, "ports_at", nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)),
	}
	s.bridges.KeyByteOrder = binaryutil.NativeEndian // how nft prints it
	s.subnets.Interval = true
	for _, m := range []*nftables.Set{s.inside, s.ports, s.portsAt} {
		m.Concatenation = true
	}
	for _, m := range []*nftables.Set{s.ports, s.portsAt} {
		m.IsMap, m.DataType = true, endpoint
	}
	return s
}

// create queues the sets with what is known of the bridges, and empty maps.
func (s *sets) create(c *nftables.Conn, bridges []Bridge) error {
	var names, inside, subnets []nftables.SetElement
	for _, b := range bridges {
		name := ifname(b.Name)
		names = append(names, nftables.SetElement{Key: name})
		if b.ICC {
			inside = append(inside, nftables.SetElement{Key: append(ifname(b.Name), name...)})
		}
		if b.Masquerade {
			first, after := bounds(b.Subnet)
			subnets = append(subnets, nftables.SetElement{Key: first}, nftables.SetElement{Key: after, IntervalEnd: true})
		}
	}
	for _, part := range []struct {
		set      *nftables.Set
		elements []nftables.SetElement
	}{{s.bridges, names}, {s.inside, inside}, {s.subnets, subnets}, {s.ports, nil}, {s.portsAt, nil}} {
		if err := c.AddSet(part.set, part.elements); err != nil {
			return err
		}
	}
	return nil
}

// bounds returns the first address of the subnet and the first after it.
func bounds(p netip.Prefix) (first, after []byte) {
	a := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(a[:])
	return a[:], binary.BigEndian.AppendUint32(nil, n+uint32(1)<<(32-p.Bits()))
}

// ifname is an interface name as the kernel compares it: 16 bytes.
func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

func (s *sets) addPorts(c *nftables.Conn, ports []Port) error {
	all, at := elements(ports)
	if err := c.SetAddElements(s.ports, all); err != nil {
		return err
	}
	return c.SetAddElements(s.portsAt, at)
}

func (s *sets) delPorts(c *nftables.Conn, ports []Port) error {
	all, at := elements(ports)
	if len(all) > 0 {
		if err := c.SetDeleteElements(s.ports, all); err != nil {
			return err
		}
	}
	if len(at) > 0 {
		return c.SetDeleteElements(s.portsAt, at)
	}
	return nil
}

// elements sorts the ports into those for all addresses and those for one. The
// parts of a concatenation begin at multiples of four bytes.
func elements(ports []Port) (all, at []nftables.SetElement) {
	for _, p := range ports {
		target := p.Target.Addr().As4()
		e := nftables.SetElement{
			Key:     append([]byte{number(p.Proto), 0, 0, 0}, port(p.Host)...),
			Val:     append(target[:], port(p.Target.Port())...),
			Comment: p.Owner,
		}
		if p.HostIP.IsUnspecified() {
			all = append(all, e)
			continue
		}
		host := p.HostIP.As4()
		e.Key = append(host[:], e.Key...)
		at = append(at, e)
	}
	return all, at
}

func port(n uint16) []byte { return []byte{byte(n >> 8), byte(n), 0, 0} }

func number(proto string) byte {
	switch proto {
	case "tcp":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_SCTP
}

// A value lies in 16-byte registers, numbered 1 to 4, or in their quarters,
// numbered from 8: register 1 is 8, 9, 10, 11.
const (
	reg  = 1
	part = 8
)

func (s *sets) addChains(c *nftables.Conn) {
	publish := c.AddChain(&nftables.Chain{Table: s.table, Name: "publish"})
	inward := c.AddChain(&nftables.Chain{Table: s.table, Name: "inward"})
	hook := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		accept := nftables.ChainPolicyAccept
		return c.AddChain(&nftables.Chain{Table: s.table, Name: name, Type: kind, Hooknum: hook, Priority: priority, Policy: &accept})
	}
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		r := &nftables.Rule{Table: s.table, Chain: chain}
		for _, p := range parts {
			r.Exprs = append(r.Exprs, p...)
		}
		c.AddRule(r)
	}

	rule(publish, daddr(part), proto(part+1), dport(part+2), s.mapTo(s.portsAt), dnat())
	rule(publish, proto(part), dport(part+1), s.mapTo(s.ports), dnat())

	pre := hook("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	rule(pre, meta(expr.MetaKeyIIFNAME, reg), in(s.bridges, false), verdict(expr.VerdictReturn, ""))
	rule(pre, toHost(), verdict(expr.VerdictJump, publish.Name))

	out := hook("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	rule(out, loopback(), verdict(expr.VerdictReturn, ""))
	rule(out, toHost(), verdict(expr.VerdictJump, publish.Name))

	post := hook("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	rule(post, saddr(), in(s.subnets, false), meta(expr.MetaKeyOIFNAME, reg), in(s.bridges, true), []expr.Any{&expr.Masq{}})

	fwd := hook("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(fwd, meta(expr.MetaKeyOIFNAME, reg), in(s.bridges, false), verdict(expr.VerdictJump, inward.Name))

	const quarters = unix.IFNAMSIZ / 4 // an interface name fills a register
	rule(inward, conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept, ""))
	rule(inward, meta(expr.MetaKeyIIFNAME, part), meta(expr.MetaKeyOIFNAME, part+quarters), inAt(s.inside, part), verdict(expr.VerdictAccept, ""))
	rule(inward, conntrack(expr.CtKeySTATUS, ctStatusDNAT), verdict(expr.VerdictAccept, ""))
	rule(inward, verdict(expr.VerdictDrop, ""))
}

const ctStatusDNAT = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h

func meta(key expr.MetaKey, to uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: to}}
}

func proto(to uint32) []expr.Any { return meta(expr.MetaKeyL4PROTO, to) }

func daddr(to uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: to, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}}
}

func saddr() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}}
}

// dport is at the same place in TCP, UDP and SCTP.
func dport(to uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: to, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

func loopback() []expr.Any {
	return append([]expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 1}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{127}})
}

func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	}
}

func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	zero := make([]byte, 4)
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: zero},
	}
}

func in(set *nftables.Set, not bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID, Invert: not}}
}

func inAt(set *nftables.Set, from uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: from, SetName: set.Name, SetID: set.ID}}
}

// mapTo looks up what is in the quarters from part on, and puts address and
// port of the container there.
func (s *sets) mapTo(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: part, DestRegister: part, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}}
}

func dnat() []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: part, RegProtoMin: part + 1}}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}
