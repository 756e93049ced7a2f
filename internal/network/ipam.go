package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/gantry-containers/gantry/internal/errs"
)

// pool is the addresses of a subnet. The lowest free one is given first, as
// Docker does, so that the first container has 172.17.0.2 again and again.
type pool struct {
	subnet  netip.Prefix
	gateway netip.Addr
	taken   map[netip.Addr]struct{}
	low     uint32 // everything below is taken
}

// newPool makes the pool of the subnet of which gateway is the host's address.
func newPool(gateway netip.Prefix) pool {
	p := pool{subnet: gateway.Masked(), gateway: gateway.Addr(), taken: map[netip.Addr]struct{}{}}
	p.low = toInt(p.subnet.Addr()) + 1
	p.taken[p.gateway] = struct{}{}
	return p
}

func toInt(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func fromInt(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// broadcast is the last address of the subnet, which no container can have.
func (p *pool) broadcast() uint32 {
	return toInt(p.subnet.Addr()) | uint32(1<<(32-p.subnet.Bits())-1)
}

// next takes the lowest free address.
func (p *pool) next() (netip.Addr, error) {
	for n := p.low; n < p.broadcast(); n++ {
		a := fromInt(n)
		if _, ok := p.taken[a]; !ok {
			p.taken[a] = struct{}{}
			p.low = n + 1
			return a, nil
		}
	}
	return netip.Addr{}, errs.Unavailable("no available IPv4 addresses on this network's address pools: %s is full", p.subnet)
}

// request takes the address the user asked for.
func (p *pool) request(a netip.Addr) error {
	if !p.subnet.Contains(a) {
		return errs.InvalidArgument("the address %s is not in the network's subnet %s", a, p.subnet)
	}
	if n := toInt(a); n == toInt(p.subnet.Addr()) || n == p.broadcast() {
		return errs.InvalidArgument("the address %s is no host's in the subnet %s", a, p.subnet)
	}
	if _, ok := p.taken[a]; ok {
		return errs.Conflict("Address already in use: %s", a)
	}
	p.taken[a] = struct{}{}
	return nil
}

// take marks an address that is known to be in use.
func (p *pool) take(a netip.Addr) { p.taken[a] = struct{}{} }

// release gives the address back.
func (p *pool) release(a netip.Addr) {
	if !a.Is4() || a == p.gateway {
		return
	}
	delete(p.taken, a)
	if p.subnet.Contains(a) && toInt(a) > toInt(p.subnet.Addr()) {
		p.low = min(p.low, toInt(a))
	}
}
