package runflags

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// networkFlags are the networks, addresses and names of a container.
type networkFlags struct {
	networks                   parsed[attachment]
	aliases, links, linkLocal  List
	ip, ip6, mac               string
	extraHosts                 List
	dns, dnsOptions, dnsSearch List
}

// attachment is one --network, in either syntax.
type attachment struct {
	target         string
	aliases, links []string
	driverOpts     map[string]string
	ip, ip6, mac   string
	linkLocal      []string
	gwPriority     int
}

func (n *networkFlags) add(fs *pflag.FlagSet) {
	n.networks = parsed[attachment]{name: "network", parse: parseAttachment}
	n.extraHosts.check = checkExtraHost
	n.dns.check = checkIP
	n.dnsSearch.check = checkSearchDomain
	n.links.check = checkLink
	fs.Var(&n.networks, "network", "Connect a container to a network")
	fs.Var(&n.networks, "net", "Connect a container to a network")
	fs.Var(&n.aliases, "network-alias", "Add network-scoped alias for the container")
	fs.Var(&n.aliases, "net-alias", "Add network-scoped alias for the container")
	fs.Var(&n.links, "link", "Add link to another container")
	fs.Var(&n.linkLocal, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	fs.StringVar(&n.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&n.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&n.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.Var(&n.extraHosts, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	fs.Var(&n.dns, "dns", "Set custom DNS servers")
	fs.Var(&n.dnsOptions, "dns-option", "Set DNS options")
	fs.Var(&n.dnsOptions, "dns-opt", "Set DNS options")
	fs.Var(&n.dnsSearch, "dns-search", "Set custom DNS search domains")
	// Links belong to user-defined networks, which come later.
	hide(fs, "net", "net-alias", "dns-opt", "link")
}

func (n *networkFlags) apply(c *Container) error {
	if _, err := parseMAC(n.mac); err != nil {
		return err
	}
	h := c.HostConfig
	h.DNS = []netip.Addr{}
	for _, v := range n.dns.values {
		addr, err := netip.ParseAddr(v)
		if err != nil {
			return fmt.Errorf("IP address is not correctly formatted: %s", v)
		}
		h.DNS = append(h.DNS, addr)
	}
	h.DNSOptions, h.DNSSearch = n.dnsOptions.orEmpty(), n.dnsSearch.orEmpty()
	h.ExtraHosts = n.extraHosts.values
	h.Links = n.links.values
	h.NetworkMode = network.NetworkDefault
	if len(n.networks.values) > 0 {
		h.NetworkMode = container.NetworkMode(n.networks.values[0].target)
	}
	var err error
	c.Networking.EndpointsConfig, err = n.endpoints()
	return err
}

func (n *networkFlags) endpoints() (map[string]*network.EndpointSettings, error) {
	eps := map[string]*network.EndpointSettings{}
	all := n.networks.values
	if len(all) == 0 {
		a := attachment{target: network.NetworkDefault}
		ep, err := n.endpoint(a, true)
		if err != nil {
			return nil, err
		}
		eps[a.target] = ep
		return eps, nil
	}
	var user, builtin bool
	for i, a := range all {
		if container.NetworkMode(a.target).IsUserDefined() {
			user = true
		} else {
			builtin = true
		}
		ep, err := n.endpoint(a, i == 0)
		if err != nil {
			return nil, err
		}
		if _, ok := eps[a.target]; ok {
			return nil, fmt.Errorf("network %q is specified multiple times", a.target)
		}
		if len(all) == 1 && reflect.DeepEqual(*ep, network.EndpointSettings{}) {
			continue // the engine makes it from the network mode
		}
		eps[a.target] = ep
	}
	if user && builtin {
		return nil, errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return eps, nil
}

// endpoint merges the flags that describe the first network into it.
func (n *networkFlags) endpoint(a attachment, first bool) (*network.EndpointSettings, error) {
	if first {
		if err := n.merge(&a); err != nil {
			return nil, err
		}
	}
	if strings.TrimSpace(a.target) == "" {
		return nil, errors.New("no name set for network")
	}
	if !container.NetworkMode(a.target).IsUserDefined() {
		if len(a.aliases) > 0 {
			return nil, errors.New("network-scoped aliases are only supported for user-defined networks")
		}
		if len(a.links) > 0 {
			return nil, errors.New("links are only supported for user-defined networks")
		}
	}
	ep := &network.EndpointSettings{GwPriority: a.gwPriority, DriverOpts: a.driverOpts, Links: a.links}
	ep.Aliases = append(ep.Aliases, a.aliases...)
	mac, err := parseMAC(a.mac)
	if err != nil {
		return nil, err
	}
	ep.MacAddress = mac
	ep.IPAMConfig, err = a.ipam()
	return ep, err
}

func (a *attachment) ipam() (*network.EndpointIPAMConfig, error) {
	if a.ip == "" && a.ip6 == "" && len(a.linkLocal) == 0 {
		return nil, nil
	}
	cfg := &network.EndpointIPAMConfig{}
	var err error
	if cfg.IPv4Address, err = optionalAddr(a.ip, "IPv4"); err != nil {
		return nil, err
	}
	if cfg.IPv6Address, err = optionalAddr(a.ip6, "IPv6"); err != nil {
		return nil, err
	}
	for _, v := range a.linkLocal {
		addr, err := optionalAddr(v, "link-local")
		if err != nil {
			return nil, err
		}
		cfg.LinkLocalIPs = append(cfg.LinkLocalIPs, addr)
	}
	return cfg, nil
}

func optionalAddr(v, kind string) (netip.Addr, error) {
	if v == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(v)
	if err != nil || kind == "IPv4" && !addr.Is4() || kind == "IPv6" && !addr.Is6() {
		return addr, fmt.Errorf("invalid %s address: %s", kind, v)
	}
	return addr, nil
}

func (n *networkFlags) merge(a *attachment) error {
	for _, f := range []struct {
		both      bool
		flag, per string
	}{
		{len(a.aliases) > 0 && len(n.aliases.values) > 0, "--network-alias", "alias"},
		{len(a.links) > 0 && len(n.links.values) > 0, "--link", "links"},
		{a.ip != "" && n.ip != "", "--ip", "IPv4 address"},
		{a.ip6 != "" && n.ip6 != "", "--ip6", "IPv6 address"},
		{a.mac != "" && n.mac != "", "--mac-address", "MAC address"},
		{len(a.linkLocal) > 0 && len(n.linkLocal.values) > 0, "--link-local-ip", "link-local IP addresses"},
	} {
		if f.both {
			return fmt.Errorf("conflicting options: cannot specify both %s and per-network %s", f.flag, f.per)
		}
	}
	if len(n.aliases.values) > 0 {
		a.aliases = n.aliases.values
	}
	// On the default bridge a link is a property of the container instead.
	if len(n.links.values) > 0 && container.NetworkMode(a.target).IsUserDefined() {
		a.links = n.links.values
	}
	if len(n.linkLocal.values) > 0 {
		a.linkLocal = n.linkLocal.values
	}
	for _, s := range []struct{ to, from *string }{{&a.ip, &n.ip}, {&a.ip6, &n.ip6}, {&a.mac, &n.mac}} {
		if *s.from != "" {
			*s.to = *s.from
		}
	}
	return nil
}

// parseAttachment reads a name, or name=…,alias=…,ip=… and so on.
func parseAttachment(v string) (a attachment, err error) {
	if !hasPair(v) {
		a.target = v
		return a, nil
	}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return a, err
	}
	for _, field := range fields {
		k, val, ok := strings.Cut(strings.ToLower(field), "=")
		if !ok || k == "" {
			return a, fmt.Errorf("invalid field %s", field)
		}
		if err := a.field(strings.TrimSpace(k), strings.TrimSpace(val)); err != nil {
			return a, err
		}
	}
	if a.target == "" {
		return a, errors.New("network name/id is not specified")
	}
	return a, nil
}

func (a *attachment) field(k, v string) (err error) {
	switch k {
	case "name":
		a.target = v
	case "alias":
		a.aliases = append(a.aliases, v)
	case "ip":
		a.ip = v
	case "ip6":
		a.ip6 = v
	case "mac-address":
		a.mac = v
	case "link-local-ip":
		a.linkLocal = append(a.linkLocal, v)
	case "driver-opt":
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return errors.New("invalid key value pair format in driver options")
		}
		if a.driverOpts == nil {
			a.driverOpts = map[string]string{}
		}
		a.driverOpts[strings.TrimSpace(name)] = strings.TrimSpace(value)
	case "gw-priority":
		if a.gwPriority, err = strconv.Atoi(v); err != nil {
			var num *strconv.NumError
			if errors.As(err, &num) {
				err = num.Err
			}
			return fmt.Errorf("invalid gw-priority (%s): %w", v, err)
		}
	default:
		return errors.New("invalid field key " + k)
	}
	return nil
}

// hasPair says whether v holds word=word anywhere, which makes it the long
// syntax.
func hasPair(v string) bool {
	word := func(i int) bool {
		if i < 0 || i >= len(v) {
			return false
		}
		c := v[i]
		return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
	}
	for i := range len(v) {
		if v[i] == '=' && word(i-1) && word(i+1) {
			return true
		}
	}
	return false
}

func parseMAC(v string) (network.HardwareAddr, error) {
	if v == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(strings.TrimSpace(v))
	if err != nil {
		return nil, fmt.Errorf("%s is not a valid mac address", v)
	}
	return network.HardwareAddr(mac), nil
}
