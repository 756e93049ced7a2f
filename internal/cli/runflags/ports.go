package runflags

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// ports are what the container listens on and where the host publishes it.
type ports struct {
	publish    List
	publishAll bool
	expose     List
}

func (p *ports) add(fs *pflag.FlagSet) {
	fs.VarP(&p.publish, "publish", "p", "Publish a container's port(s) to the host")
	fs.BoolVarP(&p.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(&p.expose, "expose", "Expose a port or a range of ports")
}

func (p *ports) apply(c *Container) error {
	exposed, bindings := network.PortSet{}, network.PortMap{}
	for _, v := range p.publish.values {
		short, err := shortForm(v)
		if err != nil {
			return err
		}
		if err := publish(short, exposed, bindings); err != nil {
			return err
		}
	}
	for _, v := range p.expose.values {
		if err := expose(v, exposed); err != nil {
			return err
		}
	}
	c.Config.ExposedPorts = exposed
	c.HostConfig.PortBindings = bindings
	c.HostConfig.PublishAllPorts = p.publishAll
	return nil
}

// shortForm turns published=8080,target=80,protocol=udp into 8080:80/udp.
func shortForm(v string) (string, error) {
	if !strings.Contains(v, "=") {
		return v, nil
	}
	params := map[string]string{"protocol": "tcp"}
	for _, field := range strings.Split(v, ",") {
		k, val, ok := strings.Cut(field, "=")
		if !ok || k == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", field)
		}
		params[k] = val
	}
	return params["published"] + ":" + params["target"] + "/" + params["protocol"], nil
}

// publish reads [[ip:][hostPort[-hostPort]]:]port[-port][/proto].
func publish(spec string, exposed network.PortSet, bindings network.PortMap) error {
	ip, host, ctr := splitPublish(spec)
	ctr, proto := splitProto(ctr)
	addr, err := hostIP(ip)
	if err != nil {
		return err
	}
	if ctr == "" {
		return fmt.Errorf("no port specified: %s<empty>", spec)
	}
	first, last, err := portRange(ctr)
	if err != nil {
		return fmt.Errorf("invalid containerPort: %s", ctr)
	}
	var hostFirst, hostLast uint16
	if host != "" {
		if hostFirst, hostLast, err = portRange(host); err != nil {
			return fmt.Errorf("invalid hostPort: %s", host)
		}
		// One container port may take any one of a range of the host.
		if last-first != hostLast-hostFirst && first != last {
			return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", ctr, host)
		}
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return fmt.Errorf("invalid proto: %s", proto)
	}
	for n := uint32(first); n <= uint32(last); n++ {
		binding := network.PortBinding{HostIP: addr}
		switch {
		case host == "":
		case first == last && hostFirst != hostLast:
			binding.HostPort = fmt.Sprintf("%d-%d", hostFirst, hostLast)
		default:
			binding.HostPort = strconv.Itoa(int(uint32(hostFirst) + n - uint32(first)))
		}
		port, _ := network.PortFrom(uint16(n), network.IPProtocol(proto))
		exposed[port] = struct{}{}
		bindings[port] = append(bindings[port], binding)
	}
	return nil
}

// splitPublish splits from the right, because an IPv6 address holds colons.
func splitPublish(spec string) (ip, host, ctr string) {
	rest, ctr, ok := cutLast(spec, ":")
	if !ok {
		return "", "", spec
	}
	ip, host, ok = cutLast(rest, ":")
	if !ok {
		return "", rest, ctr
	}
	return ip, host, ctr
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func hostIP(ip string) (netip.Addr, error) {
	if ip == "" {
		return netip.Addr{}, nil
	}
	bare := ip
	if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
		bare = ip[1 : len(ip)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("invalid IP address: %s", bare)
	}
	return addr, nil
}

func splitProto(port string) (number, proto string) {
	number, proto, _ = strings.Cut(port, "/")
	if number == "" {
		return "", ""
	}
	if proto == "" {
		proto = "tcp"
	}
	return number, strings.ToLower(proto)
}

func portRange(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, errors.New("empty string specified for ports")
	}
	a, b, ok := strings.Cut(s, "-")
	lo, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	if !ok {
		return uint16(lo), uint16(lo), nil
	}
	hi, err := strconv.ParseUint(b, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	if hi < lo {
		return 0, 0, fmt.Errorf("invalid range specified for port: %s", s)
	}
	return uint16(lo), uint16(hi), nil
}

func expose(v string, exposed network.PortSet) error {
	if strings.Contains(v, ":") {
		return fmt.Errorf("invalid port format for --expose: %s", v)
	}
	number, proto := splitProto(v)
	first, last, err := portRange(number)
	if err != nil {
		return fmt.Errorf("invalid range format for --expose: %s, error: %w", v, err)
	}
	for n := uint32(first); n <= uint32(last); n++ {
		port, _ := network.PortFrom(uint16(n), network.IPProtocol(proto))
		exposed[port] = struct{}{}
	}
	return nil
}
