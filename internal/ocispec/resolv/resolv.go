// Package resolv writes the three files a container finds its way by:
// /etc/hosts, /etc/resolv.conf and /etc/hostname.
//
// It turns settings into bytes; it reads the host's resolv.conf and hosts and
// nothing else.
package resolv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Config is what the files are made of.
type Config struct {
	Hostname, Domainname string
	Addrs                []netip.Addr // the container's own
	ExtraHosts           []string     // "name:address" or "name=address"; the address may be host-gateway
	HostGateway          []netip.Addr
	DNS                  []netip.Addr
	Search, Options      []string
	HostNetwork          bool // the container sees the host's interfaces, loopback resolvers included
}

// Where the host's names and name servers are found: the usual places, and the real
// servers behind systemd's stub, which a container cannot reach.
const (
	hostFile    = "/etc/resolv.conf"
	hostsFile   = "/etc/hosts"
	systemdFile = "/run/systemd/resolve/resolv.conf"
)

// fallback name servers, for a host all of whose are on its loopback.
const fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"

// Hosts returns /etc/hosts. Who sees the host's interfaces knows the host's
// names, unless names are given, which may be others for the same.
func Hosts(c *Config) ([]byte, error) {
	if c.HostNetwork && len(c.ExtraHosts) == 0 {
		if hosts, err := os.ReadFile(hostsFile); !errors.Is(err, fs.ErrNotExist) {
			return hosts, err
		}
	}
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, extra := range c.ExtraHosts {
		name, addr, err := SplitExtraHost(extra)
		if err != nil {
			return nil, err
		}
		if addr != "host-gateway" {
			fmt.Fprintf(&b, "%s\t%s\n", addr, name)
			continue
		}
		if len(c.HostGateway) == 0 {
			return nil, fmt.Errorf("unable to derive the IP value for host-gateway")
		}
		for _, gateway := range c.HostGateway {
			fmt.Fprintf(&b, "%s\t%s\n", gateway, name)
		}
	}
	names := c.Hostname
	if c.Domainname != "" {
		names = c.Hostname + "." + c.Domainname + " " + c.Hostname
	} else if short, _, dotted := strings.Cut(c.Hostname, "."); dotted {
		names = c.Hostname + " " + short
	}
	for _, addr := range c.Addrs {
		fmt.Fprintf(&b, "%s\t%s\n", addr, names)
	}
	return b.Bytes(), nil
}

// SplitExtraHost reads an extra host and checks it.
func SplitExtraHost(s string) (name, addr string, err error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 || i == len(s)-1 {
		return "", "", fmt.Errorf("bad format for add-host: %q", s)
	}
	name, addr = s[:i], strings.Trim(s[i+1:], "[]")
	if strings.ContainsAny(name, " \t\n#") {
		return "", "", fmt.Errorf("bad format for add-host: %q", s)
	}
	if addr != "host-gateway" {
		if _, err := netip.ParseAddr(addr); err != nil {
			return "", "", fmt.Errorf("invalid IP address in add-host: %q", addr)
		}
	}
	return name, addr, nil
}

// Hostname returns /etc/hostname.
func Hostname(c *Config) []byte {
	return []byte(c.Hostname + "\n")
}

// ResolvConf returns /etc/resolv.conf: what the user set, and the host's
// settings for the rest, without name servers a container cannot reach.
func ResolvConf(c *Config) ([]byte, error) {
	host, err := hostSettings(c.HostNetwork)
	if err != nil {
		return nil, err
	}
	if !c.HostNetwork {
		host.dropUnreachable(c.Addrs)
	}
	if len(c.DNS) > 0 {
		host.servers = nil
		for _, addr := range c.DNS {
			host.servers = append(host.servers, addr.String())
		}
	}
	if len(c.Search) > 0 {
		host.search = c.Search
		if len(c.Search) == 1 && c.Search[0] == "." {
			host.search = nil
		}
	}
	if len(c.Options) > 0 {
		host.options = c.Options
	}
	var b bytes.Buffer
	for _, s := range host.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(host.servers) == 0 {
		b.WriteString(fallback)
	}
	if len(host.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(host.search, " "))
	}
	if len(host.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(host.options, " "))
	}
	return b.Bytes(), nil
}

type settings struct{ servers, search, options []string }

// dropUnreachable takes out IPv6 name servers where the container has no IPv6
// address to ask them from.
func (s *settings) dropUnreachable(own []netip.Addr) {
	if slices.ContainsFunc(own, netip.Addr.Is6) {
		return
	}
	s.servers = slices.DeleteFunc(s.servers, func(server string) bool {
		addr, err := netip.ParseAddr(server)
		return err == nil && addr.Is6()
	})
}

func hostSettings(hostNetwork bool) (*settings, error) {
	content, err := os.ReadFile(hostFile)
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("cannot read the host's name servers: %w", err)
	}
	if !hostNetwork && onlyStub(content) {
		if real, err := os.ReadFile(systemdFile); err == nil {
			content = real
		}
	}
	return parse(content, hostNetwork), nil
}

// onlyStub tells whether systemd's stub is the one name server.
func onlyStub(content []byte) bool {
	s := parse(content, true)
	return len(s.servers) == 1 && s.servers[0] == "127.0.0.53"
}

func parse(content []byte, keepLoopback bool) *settings {
	s := &settings{}
	for _, line := range strings.Split(string(content), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			addr, err := netip.ParseAddr(fields[1])
			if err == nil && (keepLoopback || !addr.IsLoopback()) {
				s.servers = append(s.servers, fields[1])
			}
		case "search", "domain":
			s.search = fields[1:]
		case "options":
			s.options = append(s.options, fields[1:]...)
		}
	}
	return s
}
