package container

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

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
	own := !rec.HostConfig.NetworkMode.IsContainer()
	if own {
		if err := m.renderFiles(rec, dir, sandbox); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		to   *string
	}{{"hosts", &in.HostsPath}, {"resolv.conf", &in.ResolvConfPath}, {"hostname", &in.HostnamePath}} {
		if path := filepath.Join(dir, f.name); own || rendered(path) {
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

// rendered says whether a file of a container was written. Those of one that was
// not started yet may be there, and are empty.
func rendered(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

// makeSpareDir makes the directory of a container that is not known yet, with its
// files: to write to one that is there takes a fifth of the time.
func makeSpareDir(path string) error {
	if err := os.Mkdir(path, dirMode); err != nil {
		return err
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
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
		if err := overwrite(filepath.Join(dir, name), content); err != nil {
			return fmt.Errorf("cannot write the container's %s: %w", name, err)
		}
	}
	return nil
}

// overwrite is os.WriteFile without cutting the file off first: ext4 would then
// begin to write it to disk when it is closed. A file that needs no waiting is not
// for the runtime's poller either.
func overwrite(path string, content []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for rest := content; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "write", Path: path, Err: err}
		}
		rest = rest[n:]
	}
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if info.Size > int64(len(content)) {
		if err := unix.Ftruncate(fd, int64(len(content))); err != nil {
			return &os.PathError{Op: "truncate", Path: path, Err: err}
		}
	}
	return nil
}
