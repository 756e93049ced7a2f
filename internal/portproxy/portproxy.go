// Package portproxy holds the published ports of containers: it listens on the
// host's side of each, and relays what arrives there to the container.
//
// Traffic from other machines does not pass here, the firewall sends it to the
// container directly. What does pass is what the firewall cannot serve: clients
// on the host's loopback, clients inside containers of the same host, and IPv6
// clients of IPv4 containers. And because a listening socket is the one
// reservation of a port every program respects, it is how a port is held.
//
// The package runs in the net role of gantry-shim, one Proxy for all
// containers. It owns sockets and nothing else: no file, no firewall rule; who
// starts it again gives it the list again. It knows no container, only owners.
package portproxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Mapping is one published port. Its JSON form is part of the shim's protocol.
type Mapping struct {
	Proto      string `json:"proto"`          // "tcp", "udp" or "sctp"
	HostIP     string `json:"hostIP"`         // "0.0.0.0", "::" or an address of the host
	HostPort   uint16 `json:"hostPort"`       // never 0
	TargetIP   string `json:"targetIP"`       // address of the container
	TargetPort uint16 `json:"targetPort"`     // port in the container
	Name       string `json:"name,omitempty"` // the owner's name, for error texts
}

// listens is what two mappings may not have in common.
type listens struct {
	proto string
	addr  netip.AddrPort
}

func (m Mapping) listens() (listens, error) {
	ip, err := netip.ParseAddr(m.HostIP)
	if err != nil || m.HostPort == 0 {
		return listens{}, &BindError{Mapping: m, Err: unix.EINVAL}
	}
	return listens{m.Proto, netip.AddrPortFrom(ip.Unmap(), m.HostPort)}, nil
}

func (m Mapping) target() (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(m.TargetIP)
	if err != nil || m.TargetPort == 0 {
		return netip.AddrPort{}, &BindError{Mapping: m, Err: unix.EINVAL}
	}
	return netip.AddrPortFrom(ip.Unmap(), m.TargetPort), nil
}

// BindError is a host port that cannot be had. It is errdefs.ErrConflict for
// users of the engine when InUse.
type BindError struct {
	Mapping Mapping
	Err     error  // a unix.Errno
	Holder  string // who has the port, if that could be found out: `container "web"`, `process 17 (nginx)`
}

// Error reads as Docker's message for the same, and then names the holder.
func (e *BindError) Error() string {
	host := net.JoinHostPort(e.Mapping.HostIP, strconv.Itoa(int(e.Mapping.HostPort)))
	if !e.InUse() {
		return "cannot listen on " + host + "/" + e.Mapping.Proto + ": " + e.Err.Error()
	}
	text := "Bind for " + host + " failed: port is already allocated"
	if e.Holder != "" {
		text += " by " + e.Holder
	}
	return text
}

func (e *BindError) Unwrap() error { return e.Err }

// Is gives the error its class.
func (e *BindError) Is(target error) bool {
	return target == errdefs.ErrConflict && e.InUse()
}

// InUse tells whether the port is somebody else's, so that another may be free.
func (e *BindError) InUse() bool { return errors.Is(e.Err, unix.EADDRINUSE) }

// listener is an open port.
type listener interface {
	retarget(netip.AddrPort) // new connections go to another place
	close()                  // closes the port and what came through it
}

// held is an open port and whose it is.
type held struct {
	listener
	owner   string
	mapping Mapping
}

// Proxy is the set of open ports. The zero value is not ready, see New.
type Proxy struct {
	mu   sync.Mutex // guards open, and that only one Set runs
	open map[listens]*held

	budget *budget
}

// New returns a Proxy that holds no port.
func New() *Proxy { return &Proxy{open: map[listens]*held{}, budget: newBudget(connections())} }

// Set makes the list the whole of what the owner has published; an empty one
// ends it. Ports that stay are not closed in between. Either all is done or, on
// an error, which is a *BindError, nothing is changed.
func (p *Proxy) Set(owner string, list []Mapping) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh, kept, err := p.openAll(owner, list)
	if err != nil {
		for _, h := range fresh {
			h.close()
		}
		return err
	}
	for key, h := range p.open {
		if h.owner != owner {
			continue
		}
		if m, ok := kept[key]; ok {
			target, _ := m.target()
			h.retarget(target)
			h.mapping = m
			continue
		}
		h.close()
		delete(p.open, key)
	}
	for key, h := range fresh {
		p.open[key] = h
	}
	return nil
}

// openAll opens what the owner does not have yet, and returns it and what it
// has already; of the first also with an error.
func (p *Proxy) openAll(owner string, list []Mapping) (fresh map[listens]*held, kept map[listens]Mapping, err error) {
	fresh, kept = map[listens]*held{}, map[listens]Mapping{}
	for _, m := range list {
		key, err := m.listens()
		if err != nil {
			return fresh, nil, err
		}
		target, err := m.target()
		if err != nil {
			return fresh, nil, err
		}
		have := p.open[key]
		if fresh[key] != nil || kept[key] != (Mapping{}) {
			return fresh, nil, &BindError{Mapping: m, Err: unix.EADDRINUSE, Holder: "the same container"}
		}
		if have != nil && have.owner == owner {
			kept[key] = m
			continue
		}
		if have != nil {
			return fresh, nil, &BindError{Mapping: m, Err: unix.EADDRINUSE, Holder: have.holder()}
		}
		l, err := p.listen(key, target)
		if err != nil {
			return fresh, nil, p.explain(m, key, err)
		}
		fresh[key] = &held{l, owner, m}
	}
	return fresh, kept, nil
}

// explain finds out who has the port that could not be had.
func (p *Proxy) explain(m Mapping, key listens, err error) error {
	e := &BindError{Mapping: m, Err: err}
	var errno unix.Errno
	if errors.As(err, &errno) {
		e.Err = errno
	}
	if !e.InUse() {
		return e
	}
	for other, h := range p.open {
		if other.proto == key.proto && overlap(other.addr, key.addr) {
			e.Holder = h.holder()
			return e
		}
	}
	e.Holder = Holder(key.proto, key.addr)
	return e
}

func (h *held) holder() string {
	if h.mapping.Name != "" {
		return "container " + strconv.Quote(h.mapping.Name)
	}
	return "container " + h.owner
}

// overlap tells whether two sockets of one protocol cannot listen on both.
func overlap(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Is4() == b.Addr().Is4() &&
		(a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

func (p *Proxy) listen(key listens, target netip.AddrPort) (listener, error) {
	switch key.proto {
	case "tcp":
		return listenTCP(key.addr, target, p.budget)
	case "udp":
		return listenUDP(key.addr, target)
	case "sctp":
		return reserveSCTP(key.addr)
	}
	return nil, unix.EPROTONOSUPPORT
}

// Mappings returns what every owner has published, sorted by host port.
func (p *Proxy) Mappings() map[string][]Mapping {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string][]Mapping{}
	for _, h := range p.open {
		all[h.owner] = append(all[h.owner], h.mapping)
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b Mapping) int { return int(a.HostPort) - int(b.HostPort) })
	}
	return all
}

// Close closes all ports and connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, h := range p.open {
		h.close()
		delete(p.open, key)
	}
}
