package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ahead"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/network/netns"
	"github.com/gantry-containers/gantry/internal/network/rtnl"
)

// spare is a network namespace with a link on the bridge that is nobody's yet.
// Making one takes the kernel longer than all else that connecting a container
// does, so that some are made ahead, see spares.
type spare struct {
	ns     *os.File
	in     *rtnl.Conn // of the namespace
	link   string     // the host's end
	bridge int        // index of the bridge
	port   int        // index of the host's end
	eth    int        // index of eth0 in the namespace
}

// newSpare returns a spare that is not prepared yet.
func (m *Manager) newSpare(bridge int) *spare {
	return &spare{link: m.newLinkName(), bridge: bridge}
}

// discard gives the namespace up; the kernel removes it and the link.
func (s *spare) discard() {
	if s.ns != nil {
		s.in.Close()
		s.ns.Close()
		s.ns = nil
	}
}

// isolated makes a namespace with only a loopback.
func isolated() (*os.File, error) {
	return netns.New(func() error {
		in, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		var b rtnl.Batch
		b.Up(loopback)
		return in.Do(&b)
	})
}

const loopback = 1 // the index of lo in every namespace

// prepare makes the namespace and the pair of links, unless that is done.
func (s *spare) prepare(host *rtnl.Conn, bridge string, mtu int) error {
	if s.ns != nil {
		return nil
	}
	ns, err := netns.New(func() (err error) {
		s.in, err = rtnl.Dial()
		return err
	})
	if err != nil {
		return err
	}
	s.ns = ns
	return s.attach(host, bridge, mtu)
}

// attach makes the pair of links. The kernel cannot switch on the far end while
// it makes the pair, and gives it an IPv6 address of its own when it is switched
// on unless it was told before.
func (s *spare) attach(host *rtnl.Conn, bridge string, mtu int) (err error) {
	var pair rtnl.Batch
	pair.AddVeth(
		rtnl.Link{Name: s.link, MTU: mtu, Master: s.bridge, Up: true},
		rtnl.Link{Name: "eth0", MTU: mtu, NetNS: int(s.ns.Fd())})
	if err = host.Do(&pair); err != nil {
		return err
	}
	if s.port, err = host.Index(s.link); err != nil {
		return err
	}
	if s.eth, err = s.in.Index("eth0"); err != nil {
		return err
	}
	var near, far rtnl.Batch
	near.NoLinkLocal(s.port)
	host.Do(&near) // of no weight where the kernel has no IPv6
	far.NoLinkLocal(s.eth)
	s.in.Do(&far)
	far = rtnl.Batch{}
	far.Up(loopback)
	far.Up(s.eth)
	if err := s.in.Do(&far); err != nil {
		return err
	}
	// Without these the first packet may be lost, and is sent again only
	// after a second.
	s.in.Settle("eth0")
	host.Settle(s.link)
	host.Settle(bridge)
	return nil
}

// assign gives the namespace its address. The host and the bridge are told
// where it is now: they may remember the last container that had it.
func (m *Manager) assign(s *spare, e *endpoint) error {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return errs.InvalidArgument("invalid MAC address %q: %w", e.MAC, err)
	}
	m.mu.Lock()
	gateway := m.networks[bridgeNetwork].prefix()
	m.mu.Unlock()
	var in rtnl.Batch
	in.SetMAC(s.eth, mac)
	in.AddAddr(s.eth, netip.PrefixFrom(e.IP, gateway.Bits()), false)
	in.AddDefaultRoute(gateway.Addr())
	if err := s.in.Do(&in); err != nil {
		return err
	}
	return m.announce(m.link, s, e.IP, mac, time.Millisecond)
}

// announce tells the host which hardware address the container has, and the
// bridge at which port that is. The bridge does not take it for a port whose
// carrier it has not noticed yet; then it passes nothing to that port either,
// and is told later.
func (m *Manager) announce(conn *rtnl.Conn, s *spare, addr netip.Addr, mac net.HardwareAddr, pause time.Duration) error {
	var b rtnl.Batch
	b.SetNeighbour(s.bridge, addr, mac)
	b.SetForwarding(s.port, mac)
	err := conn.Do(&b)
	if errors.Is(err, unix.EPERM) && pause < time.Second {
		time.AfterFunc(pause, func() {
			if m.holds(s.link) {
				m.announce(m.later, s, addr, mac, 2*pause)
			}
		})
		return nil
	}
	return err
}

// holds tells whether a container is connected by the link.
func (m *Manager) holds(link string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.endpoints {
		if e.Link == link {
			return true
		}
	}
	return false
}

// spares are prepared while containers are being started, for the next one.
// They live in the descriptors of this process only: when it is killed, the
// kernel removes them.
type spares struct {
	m *Manager

	mu      sync.Mutex // guards what follows
	list    []*spare
	alone   []*os.File // isolated namespaces
	bridged bool       // one of list was wanted lately
	cut     bool       // one of alone was
	closed  bool

	schedule ahead.Schedule // runs fill and expire
}

// get returns a spare that is whole and on the bridge, or nil.
func (p *spares) get(bridge int) *spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.list) > 0 {
		s := p.list[len(p.list)-1]
		p.list = p.list[:len(p.list)-1]
		if port, err := p.m.link.Index(s.link); err == nil && port == s.port && s.bridge == bridge {
			return s
		}
		s.discard()
	}
	return nil
}

// isolated returns a namespace with only a loopback, and has another made.
func (p *spares) isolated() (ns *os.File, err error) {
	p.mu.Lock()
	if last := len(p.alone) - 1; last >= 0 {
		ns, p.alone = p.alone[last], p.alone[:last]
	}
	p.cut = true
	p.refill()
	p.mu.Unlock()
	if ns != nil {
		return ns, nil
	}
	return isolated()
}

// taken has another spare made in place of one that is connected now.
func (p *spares) taken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bridged = true
	p.refill()
}

// refill has spares made in a while, of the kinds that are wanted.
func (p *spares) refill() {
	if p.m.Spare > 0 {
		p.schedule.Used()
	}
}

func (p *spares) fill() {
	p.fillIsolated()
	for p.wanting() {
		bridge, err := p.m.ensure()
		if err != nil {
			return
		}
		s := p.m.newSpare(bridge)
		if err := s.prepare(p.m.later, p.m.BridgeName(), p.m.MTU); err != nil {
			s.discard()
			return // the next Connect meets the same and reports it
		}
		p.mu.Lock()
		if p.closed {
			s.discard()
		} else {
			p.list = append(p.list, s)
		}
		p.mu.Unlock()
	}
}

func (p *spares) wanting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && p.bridged && len(p.list) < p.m.Spare
}

func (p *spares) fillIsolated() {
	for p.wantingIsolated() {
		ns, err := isolated()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.closed {
			ns.Close()
		} else {
			p.alone = append(p.alone, ns)
		}
		p.mu.Unlock()
	}
}

func (p *spares) wantingIsolated() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && p.cut && len(p.alone) < p.m.Spare
}

func (p *spares) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list {
		s.discard()
	}
	for _, ns := range p.alone {
		ns.Close()
	}
	p.list, p.alone, p.bridged, p.cut = nil, nil, false, false
}

// drain ends the making of spares for good.
func (p *spares) drain() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.schedule.Stop()
	p.expire()
}

// names returns the links of the spares.
func (p *spares) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, s := range p.list {
		names = append(names, s.link)
	}
	return names
}
