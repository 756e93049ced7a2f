// Package network connects containers: it keeps the default bridge, gives
// addresses, makes the network namespaces and publishes ports.
//
// It owns, of one engine instance: the bridge INSTANCE0, the links INSTANCE-…
// that are ports of it, one nftables table named INSTANCE (package firewall),
// and the lists of ports that the net role of gantry-shim holds. It runs no
// program and keeps no process; a namespace lives by the descriptor it returns.
// It knows a container by its ID and name only, and no other manager.
//
// What it does for a running container is in one volatile record, written
// before the kernel is changed: whatever a killed daemon leaves is found by
// Restore, either by the record or by the name of the link.
//
// Locks: Manager.setup is taken before Manager.mu. Under setup the bridge and
// the table are changed, under mu only what is in memory. Neither is held while
// the shim is asked, or the links of a container are made.
//
// The engine needs IPv4 forwarding and switches it on. That makes the host a
// router between its other networks too, where no firewall of its own says
// otherwise; it is not switched off again.
package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/network/firewall"
	"github.com/gantry-containers/gantry/internal/network/rtnl"
	"github.com/gantry-containers/gantry/internal/portproxy"
	"github.com/gantry-containers/gantry/internal/state"
)

// PortHolder holds host ports and relays them; *shim.Client is one, and so is
// the relay of this process that Local returns.
type PortHolder interface {
	// SetPorts makes the list all that is published for the owner; nil ends
	// it. It changes nothing when it fails.
	SetPorts(ctx context.Context, owner string, ports []portproxy.Mapping) error
}

// Local returns a holder within this process, which ends with it.
func Local(p *portproxy.Proxy) PortHolder { return local{p} }

type local struct{ *portproxy.Proxy }

func (l local) SetPorts(_ context.Context, owner string, ports []portproxy.Mapping) error {
	return l.Set(owner, ports)
}

// Options is what a Manager is made of.
type Options struct {
	DB       *state.DB
	Events   *state.Events // may be nil
	Shim     PortHolder    // required to publish ports
	Instance string        // 1 to 8 lower-case letters and digits
	// BridgeAddr is the bridge's address and its subnet, as in 172.30.0.1/24;
	// the zero value takes the first free subnet and keeps it.
	BridgeAddr netip.Prefix
	MTU        int // of the bridge and the containers; 0 means 1500
	// Spare is how many prepared namespaces are kept while containers are
	// being started, so that the next start need not wait; 0 turns it off.
	Spare int
}

// Manager is the networks of one engine. It is safe for use by several
// goroutines.
type Manager struct {
	Options
	nets  *state.Table[record]
	ends  *state.Table[endpoint]
	link  *rtnl.Conn // for what somebody waits for
	later *rtnl.Conn // for what goes on in the background
	table *firewall.Table

	setup   sync.Mutex        // guards the making of the bridge and the table, and what follows
	ready   bool              // the bridge and the table are there
	bridge  int               // index of the bridge
	watcher *firewall.Watcher // tells when the table is not there any more; may be nil

	mu        sync.Mutex           // guards what follows
	networks  map[string]*record   // by name
	endpoints map[string]*endpoint // by container ID
	addresses pool                 // of the default bridge
	ports     portTable

	spares  spares
	sweeper sweeper
}

// record is a network as it is stored, under its name.
type record struct {
	network.Network
}

// New opens the manager of an instance and its records. It changes nothing in
// the kernel: the bridge appears with the first container.
func New(ctx context.Context, o Options) (*Manager, error) {
	if !validInstance(o.Instance) {
		return nil, errs.InvalidArgument("invalid instance name %q: it must be 1 to 8 lower-case letters or digits", o.Instance)
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	link, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	later, err := rtnl.Dial()
	if err != nil {
		link.Close()
		return nil, err
	}
	m := &Manager{
		Options:   o,
		nets:      state.NewTable[record](o.DB, "networks"),
		ends:      state.NewTable[endpoint](o.DB, "endpoints"),
		link:      link,
		later:     later,
		table:     firewall.New(o.Instance, 0),
		networks:  map[string]*record{},
		endpoints: map[string]*endpoint{},
	}
	m.spares.m, m.sweeper.m = m, m
	m.spares.schedule.Fill, m.spares.schedule.Expire = m.spares.fill, m.spares.expire
	if err := m.load(); err != nil {
		link.Close()
		later.Close()
		return nil, err
	}
	return m, nil
}

func validInstance(s string) bool {
	return len(s) >= 1 && len(s) <= 8 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// load reads the records and makes those of the predefined networks.
func (m *Manager) load() error {
	nets, err := m.nets.All()
	if err != nil {
		return err
	}
	m.networks = nets
	if err := m.predefine(); err != nil {
		return err
	}
	ends, err := m.ends.All()
	if err != nil {
		return err
	}
	m.addresses = newPool(m.networks[bridgeNetwork].prefix())
	for id, e := range ends {
		m.adopt(id, e)
	}
	return nil
}

// adopt enters an endpoint of an earlier daemon into the tables.
func (m *Manager) adopt(id string, e *endpoint) {
	m.endpoints[id] = e
	if e.IP.IsValid() {
		m.addresses.take(e.IP)
	}
	m.ports.reserve(id, e.Mappings)
}

// Close stops what goes on in the background. Everything that was set up for
// containers stays.
func (m *Manager) Close() error {
	m.spares.drain()
	m.sweeper.stop()
	m.setup.Lock()
	m.ready = false
	if m.watcher != nil {
		m.watcher.Close()
	}
	m.setup.Unlock()
	m.table.Close()
	return errors.Join(m.link.Close(), m.later.Close())
}

// BridgeName is the name of the default bridge's interface.
func (m *Manager) BridgeName() string { return m.Instance + "0" }

// Gateway returns the host's address on the default bridge: what containers
// may call host-gateway.
func (m *Manager) Gateway() netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.networks[bridgeNetwork].prefix().Addr()
}

// linkPrefix begins the name of the host's end of every veth. The bridge has no
// dash in its name, and no other instance can have this prefix.
func (m *Manager) linkPrefix() string { return m.Instance + "-" }

// newLinkName uses up what 15 bytes leave for telling links apart.
func (m *Manager) newLinkName() string {
	prefix := m.linkPrefix()
	for {
		name := prefix + newID()[:min(15-len(prefix), 8)]
		if _, err := m.link.Index(name); err != nil {
			return name
		}
	}
}

// newID returns 64 random hexadecimal digits.
func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func short(id string) string { return id[:min(12, len(id))] }

func notFound(ref string) error { return errs.NotFound("network %s not found", ref) }

func addrPort(a netip.Addr, p uint16) string {
	return netip.AddrPortFrom(a, p).String()
}
