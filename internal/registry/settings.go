package registry

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Settings is what a person configures of how registries are reached. They may
// be changed while the client is used.
type Settings struct {
	// Insecure lists registries, as host, host:port or CIDR, whose
	// certificates are not verified and which may be spoken to in plain HTTP.
	// Loopback addresses are treated so where nothing is configured for them.
	Insecure []string
	// Mirrors are URLs that are asked before Docker Hub, best first.
	Mirrors []string
	// Neighbours are other engines that serve their images, as host:port or
	// URL. They are asked for what has a digest before anybody else is, and
	// for a tag when its registry cannot be reached.
	Neighbours []string
	// HostDirs are searched for a directory named as the registry, which
	// holds a hosts.toml as containerd reads it, or certificates as Docker
	// does; the first that has one counts. See DefaultHostDirs.
	HostDirs []string
}

// DefaultHostDirs are where Docker and containerd look.
func DefaultHostDirs() []string {
	return []string{"/etc/docker/certs.d", "/etc/containerd/certs.d"}
}

// Check brings the settings into their normal form, and says what is wrong with
// them in the words of dockerd where it has some.
func (s *Settings) Check() error {
	for i, mirror := range s.Mirrors {
		clean, err := checkMirror(mirror)
		if err != nil {
			return err
		}
		s.Mirrors[i] = clean
	}
	s.Mirrors = unique(s.Mirrors)
	for i, insecure := range s.Insecure {
		clean, err := checkInsecure(insecure)
		if err != nil {
			return err
		}
		s.Insecure[i] = clean
	}
	s.Insecure = unique(s.Insecure)
	for _, neighbour := range s.Neighbours {
		if _, err := neighbourURL(neighbour); err != nil {
			return err
		}
	}
	return nil
}

// unique drops what was said before.
func unique(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func checkMirror(mirror string) (string, error) {
	if scheme, _, ok := strings.Cut(mirror, "://"); !ok || scheme == "" {
		return "", errs.InvalidArgument("invalid mirror: no scheme specified for %q: must use either 'https://' or 'http://'", mirror)
	}
	u, err := url.Parse(mirror)
	switch {
	case err != nil || u.Host == "":
		return "", errs.InvalidArgument("invalid mirror: %q is not a valid URI", mirror)
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errs.InvalidArgument("invalid mirror: unsupported scheme %q in %q: must use either 'https://' or 'http://'", u.Scheme, mirror)
	case u.User != nil:
		return "", errs.InvalidArgument("invalid mirror: username/password not allowed in URI %q", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return "", errs.InvalidArgument("invalid mirror: query or fragment at end of the URI %q", mirror)
	}
	return strings.TrimSuffix(mirror, "/") + "/", nil
}

func checkInsecure(registry string) (string, error) {
	if scheme, rest, ok := strings.Cut(registry, "://"); ok {
		if !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return "", errs.InvalidArgument("insecure registry %s should not contain '://'", registry)
		}
		registry = rest // as dockerd has it
	}
	if strings.HasPrefix(registry, "-") || strings.HasSuffix(registry, "-") {
		return "", errs.InvalidArgument("invalid index name (%s). Cannot begin or end with a hyphen", registry)
	}
	if prefix, err := netip.ParsePrefix(registry); err == nil {
		return prefix.Masked().String(), nil
	}
	if !isHostPort(registry) {
		return "", errs.InvalidArgument("insecure registry %s is not valid: it is neither a host, with or without a port, nor a network", registry)
	}
	return registry, nil
}

// isHostPort tells whether s can be the address of a server in a name.
func isHostPort(s string) bool {
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return true
	}
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
		host = h
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// neighbourURL reads the address of a neighbour. Without a scheme, what it
// speaks is found out by asking.
func neighbourURL(neighbour string) (*url.URL, error) {
	if !strings.Contains(neighbour, "://") {
		if _, _, err := net.SplitHostPort(neighbour); err != nil || !isHostPort(neighbour) {
			return nil, errs.InvalidArgument("invalid neighbour: %q is not HOST:PORT", neighbour)
		}
		return &url.URL{Host: neighbour}, nil
	}
	u, err := url.Parse(neighbour)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || !isHostPort(u.Host) ||
		u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errs.InvalidArgument("invalid neighbour: %q is neither HOST:PORT nor http(s)://HOST:PORT", neighbour)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}
