package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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

// LoadTLS reads the client's certificate, key and authorities. Files that are
// absent are left out when optional is set, as they are when only a directory
// was named.
func LoadTLS(caFile, certFile, keyFile string, verify, optional bool) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify}
	missing := func(name string) bool {
		_, err := os.Stat(name)
		return name == "" || (optional && errors.Is(err, os.ErrNotExist))
	}
	if verify && !missing(caFile) {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA certificate: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cannot use the CA certificate: %s holds no PEM certificate", filepath.Base(caFile))
		}
	}
	if !missing(certFile) || !missing(keyFile) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("cannot use the client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
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
