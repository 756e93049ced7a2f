package container

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
)

// link is a legacy link (--link): a container of the default bridge that
// another one knows by an alias, in /etc/hosts and in variables.
type link struct{ target, alias string }

// parseLink reads "name[:alias]", or the form inspect shows,
// "/name:/container/alias".
func parseLink(s string) (link, error) {
	target, alias, named := strings.Cut(s, ":")
	if !named {
		alias = target
	}
	alias = alias[strings.LastIndexByte(alias, '/')+1:]
	target = strings.TrimPrefix(target, "/")
	if target == "" || alias == "" || strings.ContainsAny(alias, " \t\n:#=") {
		return link{}, errs.InvalidArgument("bad format for links: %s", s)
	}
	return link{target, alias}, nil
}

// validateLinks refuses links to containers that are not there, and keeps IDs,
// which survive a rename.
func (m *Manager) validateLinks(h *api.HostConfig) error {
	kept := make([]string, 0, len(h.Links))
	for _, raw := range h.Links {
		l, err := parseLink(raw)
		if err != nil {
			return err
		}
		target, err := m.lookup(l.target)
		if err != nil {
			return errs.InvalidArgument("could not get container for %s: %s", l.target, err)
		}
		kept = append(kept, target.copy().ID+":"+l.alias)
	}
	if len(kept) > 0 {
		h.Links = kept
	}
	return nil
}

// shownLinks are the links as inspect shows them.
func (m *Manager) shownLinks(rec *Record) []string {
	var shown []string
	for _, raw := range rec.HostConfig.Links {
		l, err := parseLink(raw)
		if err != nil {
			continue
		}
		if target, err := m.lookup(l.target); err == nil {
			shown = append(shown, "/"+target.copy().Name+":/"+rec.Name+"/"+l.alias)
		}
	}
	return shown
}

// linked is what a start makes of the links: lines of /etc/hosts and variables.
type linked struct{ hosts, env []string }

func (m *Manager) resolveLinks(rec *Record) (*linked, error) {
	out := &linked{}
	if rec.HostConfig.NetworkMode != network.NetworkBridge {
		return out, nil
	}
	for _, raw := range rec.HostConfig.Links {
		l, err := parseLink(raw)
		if err != nil {
			return nil, err
		}
		c, err := m.lookup(l.target)
		if err != nil {
			return nil, err
		}
		target := c.copy()
		addr := bridgeAddress(&target)
		if addr == "" {
			return nil, errs.Conflict("Cannot link to a non running container: /%s AS /%s/%s", target.Name, rec.Name, l.alias)
		}
		names := []string{l.alias, target.Config.Hostname}
		if target.Name != l.alias {
			names = append(names, target.Name)
		}
		out.hosts = append(out.hosts, addr+"\t"+strings.Join(names, " "))
		out.env = append(out.env, linkEnv("/"+rec.Name+"/"+l.alias, l.alias, addr, &target)...)
	}
	return out, nil
}

// withLinks is the configuration with the variables of the links, which the
// user's own win over.
func (m *Manager) withLinks(rec *Record) (*api.Config, error) {
	if len(rec.HostConfig.Links) == 0 {
		return rec.Config, nil
	}
	links, err := m.resolveLinks(rec)
	if err != nil {
		return nil, err
	}
	config := *rec.Config
	config.Env = append(links.env, config.Env...)
	return &config, nil
}

func bridgeAddress(rec *Record) string {
	if rec.running() && rec.Network != nil {
		if ep := rec.Network.Endpoints[network.NetworkBridge]; ep != nil && ep.IPAddress.IsValid() {
			return ep.IPAddress.String()
		}
	}
	return ""
}

// linkEnv are the variables Docker has given since links were its only network.
func linkEnv(name, alias, addr string, target *Record) []string {
	prefix := strings.ReplaceAll(strings.ToUpper(alias), "-", "_")
	env := []string{prefix + "_NAME=" + name}
	ports := slices.SortedFunc(maps.Keys(target.Config.ExposedPorts), func(a, b network.Port) int {
		if a.Num() != b.Num() {
			return int(a.Num()) - int(b.Num())
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
	for i, port := range ports {
		url := fmt.Sprintf("%s://%s:%d", port.Proto(), addr, port.Num())
		if i == 0 {
			env = append(env, prefix+"_PORT="+url)
		}
		one := fmt.Sprintf("%s_PORT_%d_%s", prefix, port.Num(), strings.ToUpper(string(port.Proto())))
		env = append(env, one+"="+url, one+"_ADDR="+addr, fmt.Sprintf("%s_PORT=%d", one, port.Num()), one+"_PROTO="+string(port.Proto()))
	}
	for _, v := range target.Config.Env {
		key, value, set := strings.Cut(v, "=")
		if set && key != "HOME" && key != "PATH" {
			env = append(env, prefix+"_ENV_"+key+"="+value)
		}
	}
	return env
}
