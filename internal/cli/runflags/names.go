package runflags

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// checkIP brings an address into its canonical form.
func checkIP(v string) (string, error) {
	addr, err := netip.ParseAddr(strings.TrimSpace(v))
	if err != nil || addr.Zone() != "" {
		return "", fmt.Errorf("IP address is not correctly formatted: %s", v)
	}
	return addr.String(), nil
}

// checkExtraHost reads name:ip or name=ip, where ip may be in brackets or be
// host-gateway, and returns name:ip.
func checkExtraHost(v string) (string, error) {
	name, ip, ok := strings.Cut(v, "=")
	if !ok {
		name, ip, ok = strings.Cut(v, ":")
	}
	if !ok || name == "" || strings.Contains(name, ":") {
		return "", fmt.Errorf("bad format for add-host: %q", v)
	}
	if ip == "host-gateway" {
		return name + ":" + ip, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if _, err := checkIP(ip); err != nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return name + ":" + ip, nil
}

func checkLink(v string) (string, error) {
	switch {
	case v == "":
		return "", errors.New("empty string specified for links")
	case strings.Count(v, ":") > 1:
		return "", fmt.Errorf("bad format for links: %s", v)
	}
	return v, nil
}

// checkSearchDomain accepts a domain name, or a single dot for no search.
func checkSearchDomain(v string) (string, error) {
	v = strings.Trim(v, " ")
	if v == "." {
		return v, nil
	}
	name := strings.TrimSuffix(strings.TrimSpace(v), ".")
	letters := false
	for _, label := range strings.Split(name, ".") {
		if !validLabel(label) {
			return "", fmt.Errorf("%s is not a valid domain", v)
		}
		letters = letters || strings.ContainsFunc(label, func(r rune) bool { return 'a' <= r|0x20 && r|0x20 <= 'z' })
	}
	if !letters || len(name) >= 255 {
		return "", fmt.Errorf("%s is not a valid domain", v)
	}
	return name, nil
}

// validLabel accepts letters, digits and inner hyphens.
func validLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if r != '-' && !('0' <= r && r <= '9') && !('a' <= r|0x20 && r|0x20 <= 'z') {
			return false
		}
	}
	return true
}
