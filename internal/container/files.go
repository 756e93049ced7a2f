package container

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocispec"
	"github.com/gantry-containers/gantry/internal/ocispec/resolv"
)

// writeFiles writes /etc/hosts, /etc/resolv.conf and /etc/hostname of the
// container and has them mounted. A container that joins the network of
// another one uses that one's files.
func (m *Manager) writeFiles(rec *Record, in *ocispec.Input, sandbox *Sandbox) error {
	dir, err := m.filesDir(rec)
	if err != nil {
		return err
	}
	if !rec.HostConfig.NetworkMode.IsContainer() {
		if err := m.renderFiles(rec, dir, sandbox); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		to   *string
	}{{"hosts", &in.HostsPath}, {"resolv.conf", &in.ResolvConfPath}, {"hostname", &in.HostnamePath}} {
		if path := filepath.Join(dir, f.name); fileExists(path) {
			*f.to = path
		}
	}
	return nil
}

// filesDir is where these files are.
func (m *Manager) filesDir(rec *Record) (string, error) {
	if !rec.HostConfig.NetworkMode.IsContainer() {
		return m.dir(rec.ID), nil
	}
	owner, err := m.lookup(rec.HostConfig.NetworkMode.ConnectedContainer())
	if err != nil {
		return "", err
	}
	return m.dir(owner.copy().ID), nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (m *Manager) renderFiles(rec *Record, dir string, sandbox *Sandbox) error {
	d := &m.opts.Defaults
	config := &resolv.Config{
		Hostname:    rec.Config.Hostname,
		Domainname:  rec.Config.Domainname,
		ExtraHosts:  rec.HostConfig.ExtraHosts,
		HostGateway: d.HostGateway(),
		DNS:         rec.HostConfig.DNS,
		Search:      rec.HostConfig.DNSSearch,
		Options:     rec.HostConfig.DNSOptions,
		HostNetwork: rec.HostConfig.NetworkMode.IsHost(),
	}
	if len(config.DNS) == 0 {
		config.DNS = d.DNS
	}
	if len(config.Search) == 0 {
		config.Search = d.DNSSearch
	}
	if len(config.Options) == 0 {
		config.Options = d.DNSOptions
	}
	if sandbox != nil {
		for _, ep := range sandbox.Endpoints {
			for _, addr := range []netip.Addr{ep.IPAddress, ep.GlobalIPv6Address} {
				if addr.IsValid() {
					config.Addrs = append(config.Addrs, addr)
				}
			}
		}
	}
	hosts, err := resolv.Hosts(config)
	if err != nil {
		return errs.InvalidArgument("%w", err)
	}
	links, err := m.resolveLinks(rec)
	if err != nil {
		return err
	}
	for _, line := range links.hosts {
		hosts = append(hosts, line+"\n"...)
	}
	resolvConf, err := resolv.ResolvConf(config)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"hosts": hosts, "resolv.conf": resolvConf, "hostname": resolv.Hostname(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("cannot write the container's %s: %w", name, err)
		}
	}
	return nil
}
