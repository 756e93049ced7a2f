package client

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// splitHost turns a -H value into what net.Dial takes.
func splitHost(host string, secure bool) (network, address string, err error) {
	proto, rest, ok := strings.Cut(host, "://")
	if !ok {
		proto, rest = "tcp", host
	}
	switch proto {
	case "unix":
		if rest == "" || strings.Contains(rest, "://") {
			return "", "", fmt.Errorf("invalid host %q: a Unix socket needs a path, as in unix:///run/gantry/gantry.sock", host)
		}
		return "unix", rest, nil
	case "tcp", "http", "https":
		return splitTCP(host, strings.TrimSuffix(rest, "/"), secure)
	}
	return "", "", fmt.Errorf("invalid host %q: %s:// is not one of unix:// and tcp://", host, proto)
}

func splitTCP(host, rest string, secure bool) (network, address string, err error) {
	port := "2375"
	if secure {
		port = "2376"
	}
	name := rest
	if h, p, err := net.SplitHostPort(rest); err == nil {
		name = h
		if p != "" {
			port = p
		}
	}
	name = strings.Trim(name, "[]")
	if name == "" {
		name = "localhost"
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || strings.ContainsAny(name, "/ ") {
		return "", "", fmt.Errorf("invalid host %q: it should look like tcp://name:port", host)
	}
	return "tcp", net.JoinHostPort(name, port), nil
}

// VersionLess compares API versions such as 1.9 and 1.41.
func VersionLess(a, b string) bool {
	amaj, amin, _ := strings.Cut(a, ".")
	bmaj, bmin, _ := strings.Cut(b, ".")
	for _, p := range [][2]string{{amaj, bmaj}, {amin, bmin}} {
		x, _ := strconv.Atoi(p[0])
		y, _ := strconv.Atoi(p[1])
		if x != y {
			return x < y
		}
	}
	return false
}
