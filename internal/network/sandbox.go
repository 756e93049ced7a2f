package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// ConnectRequest is a container that wants to be on a network.
type ConnectRequest struct {
	ContainerID string
	Name        string // without the slash
	Hostname    string
	// Mode is default, bridge, none or host. A container on the host's network
	// is only entered into the list; container:NAME is not for this package.
	Mode       container.NetworkMode
	Exposed    network.PortSet
	Bindings   network.PortMap
	PublishAll bool
	Endpoint   *network.EndpointSettings // MacAddress, IPAMConfig and names; may be nil
}

// Sandbox is where a connected container runs.
type Sandbox struct {
	SandboxID string
	NetNS     *os.File // the caller closes it; nil on the host's network
	Endpoints map[string]*network.EndpointSettings
	Ports     network.PortMap
}

// Connect makes the network namespace of a container, with everything in it,
// and publishes its ports. A container that is connected already is
// disconnected first: it has been started anew. Errors are ErrConflict for an
// address or port in use, ErrInvalidArgument for one that cannot be.
func (m *Manager) Connect(ctx context.Context, req *ConnectRequest) (*Sandbox, error) {
	name, err := networkName(req.Mode)
	if err != nil {
		return nil, err
	}
	if err := m.Disconnect(ctx, req.ContainerID); err != nil {
		return nil, err
	}
	e := m.newEndpoint(req, name)
	var ns *os.File
	switch name {
	case bridgeNetwork:
		ns, err = m.connectBridge(ctx, e, req)
	case noneNetwork:
		if ns, err = m.spares.isolated(); err == nil {
			err = m.enter(e)
		}
	case hostNetwork:
		err = m.enter(e)
	}
	if err != nil {
		if ns != nil {
			ns.Close()
		}
		return nil, err
	}
	m.publish(events.ActionConnect, e)
	s := m.sandbox(e)
	s.NetNS = ns
	return s, nil
}

func networkName(mode container.NetworkMode) (string, error) {
	switch mode {
	case "", "default", bridgeNetwork:
		return bridgeNetwork, nil
	case noneNetwork, hostNetwork:
		return string(mode), nil
	}
	return "", notFound(string(mode))
}

// enter records an endpoint of a network that is nothing in the kernel.
func (m *Manager) enter(e *endpoint) error {
	m.mu.Lock()
	m.endpoints[e.ContainerID] = e
	m.mu.Unlock()
	if err := m.ends.PutVolatile(e.ContainerID, e); err != nil {
		m.claim(e.ContainerID)
		return err
	}
	return nil
}

// connectBridge takes what the endpoint needs, writes that down, and only then
// changes the kernel, so that a daemon killed at any point leaves nothing that
// the next one does not know of.
func (m *Manager) connectBridge(ctx context.Context, e *endpoint, req *ConnectRequest) (*os.File, error) {
	list, err := wishes(req, hasIPv6())
	if err != nil {
		return nil, err
	}
	if err := checkMAC(req.Endpoint); err != nil {
		return nil, err
	}
	bridge, err := m.ensure()
	if err != nil {
		return nil, err
	}
	s := m.spares.get(bridge)
	if s == nil {
		s = m.newSpare(bridge)
	}
	e.Link = s.link
	if err = m.reserve(e, req, list); err != nil {
		s.discard()
		return nil, err
	}
	if err = m.ends.PutVolatile(e.ContainerID, e); err == nil {
		err = m.bring(ctx, e, s, list)
	}
	if err != nil {
		s.discard()
		m.claim(e.ContainerID)
		return nil, errors.Join(err, m.tearDown(context.WithoutCancel(ctx), e))
	}
	s.in.Close()
	m.spares.taken()
	return s.ns, nil
}

// bring makes the spare the namespace of the endpoint, and meanwhile publishes
// its ports.
func (m *Manager) bring(ctx context.Context, e *endpoint, s *spare, list []wish) error {
	ports := make(chan error, 1)
	go func() { ports <- m.openPorts(ctx, e, list) }()
	err := s.prepare(m.link, m.BridgeName(), m.MTU)
	if err == nil {
		err = m.assign(s, e)
	}
	if err2 := <-ports; err2 != nil {
		return err2
	}
	return err
}

func (m *Manager) openPorts(ctx context.Context, e *endpoint, list []wish) error {
	if len(list) == 0 {
		return nil
	}
	if err := m.holdPorts(ctx, e, list); err != nil {
		return err
	}
	return m.addPorts(e)
}

// holdPorts has the shim listen. A port we chose may have been taken since by
// another program: then others are chosen.
func (m *Manager) holdPorts(ctx context.Context, e *endpoint, list []wish) error {
	for tries := 3; ; tries-- {
		err := m.setPorts(ctx, e.ContainerID, e.Mappings)
		if err == nil || tries == 0 || !errors.Is(err, errdefs.ErrConflict) || !slices.ContainsFunc(list, wish.dynamic) {
			return err
		}
		m.mu.Lock()
		m.ports.release(e.ContainerID, e.Mappings)
		e.Mappings = nil
		err = m.allocate(e, list)
		m.mu.Unlock()
		if err == nil {
			err = m.ends.PutVolatile(e.ContainerID, e)
		}
		if err != nil {
			return err
		}
	}
}

// reserve gives the endpoint its address and ports, and enters it.
func (m *Manager) reserve(e *endpoint, req *ConnectRequest, list []wish) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var want netip.Addr
	if s := req.Endpoint; s != nil && s.IPAMConfig != nil {
		want = s.IPAMConfig.IPv4Address
	}
	if want.IsValid() {
		e.IP, err = want, m.addresses.request(want)
	} else {
		e.IP, err = m.addresses.next()
	}
	if err != nil {
		return err
	}
	e.MAC = macOf(e.IP).String()
	if s := req.Endpoint; s != nil && len(s.MacAddress) > 0 {
		e.MAC = s.MacAddress.String()
	}
	if err := m.allocate(e, list); err != nil {
		m.addresses.release(e.IP)
		return err
	}
	m.endpoints[e.ContainerID] = e
	return nil
}

// claim takes the endpoint out of the list; only the first who does may tear it
// down. What it held stays taken until release.
func (m *Manager) claim(containerID string) *endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.endpoints[containerID]
	delete(m.endpoints, containerID)
	return e
}

// release gives back what a claimed endpoint held.
func (m *Manager) release(e *endpoint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ports.release(e.ContainerID, e.Mappings)
	if e.IP.IsValid() {
		m.addresses.release(e.IP)
	}
}

// Disconnect releases all that Connect took. It is no error when the container
// is not connected. The link goes with the namespace, when the last process or
// descriptor of that is gone, and is removed soon after if something keeps it.
// All is released even when an error is returned, and when ctx is cancelled.
func (m *Manager) Disconnect(ctx context.Context, containerID string) error {
	e := m.claim(containerID)
	if e == nil {
		return nil
	}
	err := m.tearDown(context.WithoutCancel(ctx), e)
	m.publish(events.ActionDisconnect, e)
	return err
}

// tearDown ends a claimed endpoint. The record goes after what it speaks of.
func (m *Manager) tearDown(ctx context.Context, e *endpoint) error {
	var err1, err2 error
	if len(e.Mappings) > 0 {
		err1 = m.setPorts(ctx, e.ContainerID, nil)
		err2 = m.removePorts(e)
	}
	if slices.ContainsFunc(e.Mappings, func(p portproxy.Mapping) bool { return p.Proto == "udp" }) {
		// A client that keeps sending would be led to the old address for ever.
		err2 = errors.Join(err2, m.table.ForgetFlows(e.IP))
	}
	if e.Link != "" {
		m.sweeper.add(e.Link)
	}
	err3 := m.ends.Delete(e.ContainerID)
	m.release(e)
	return errors.Join(err1, err2, err3)
}

func (m *Manager) setPorts(ctx context.Context, owner string, list []portproxy.Mapping) error {
	if m.Shim == nil {
		return errs.Unavailable("cannot publish ports: no gantry-shim is there to hold them")
	}
	return m.Shim.SetPorts(ctx, owner, list)
}

// Sandbox returns where the container is connected, without a descriptor of the
// namespace; ok is false when it is not.
func (m *Manager) Sandbox(containerID string) (s *Sandbox, ok bool) {
	m.mu.Lock()
	e := m.endpoints[containerID]
	m.mu.Unlock()
	if e == nil {
		return nil, false
	}
	return m.sandbox(e), true
}

func (m *Manager) sandbox(e *endpoint) *Sandbox {
	exposed := network.PortSet{}
	for _, port := range e.Exposed {
		exposed[port] = struct{}{}
	}
	if e.Network != bridgeNetwork {
		exposed = nil
	}
	return &Sandbox{
		SandboxID: e.SandboxID,
		Endpoints: map[string]*network.EndpointSettings{e.Network: m.settings(e)},
		Ports:     portMap(exposed, e.Mappings),
	}
}

func (m *Manager) publish(action events.Action, e *endpoint) {
	m.mu.Lock()
	driver := m.networks[e.Network].Driver
	m.mu.Unlock()
	m.tell(action, events.Actor{ID: e.NetworkID, Attributes: map[string]string{
		"container": e.ContainerID, "name": e.Network, "type": driver,
	}})
}
