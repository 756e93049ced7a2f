package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ListenOptions say how addresses are listened on.
type ListenOptions struct {
	Group     string // of unix sockets; "" leaves the process's
	NeedGroup bool   // a group that does not exist is an error, not a reason to leave it out

	TLS                       bool // on tcp addresses
	CAFile, CertFile, KeyFile string
	VerifyClients             bool // clients need a certificate of the CA

	Log *slog.Logger
}

// The ports of tcp addresses that name none.
const (
	plainPort = "2375"
	tlsPort   = "2376"
)

// Listen opens the address: unix:///path, tcp://host:port, or fd://, which are
// the sockets systemd hands over. It fails when another daemon answers on a
// unix socket; one that nobody answers on is replaced.
func Listen(ctx context.Context, address string, o ListenOptions) ([]net.Listener, error) {
	scheme, rest, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	switch scheme {
	case "unix":
		l, err := listenUnix(ctx, rest, o)
		return []net.Listener{l}, err
	case "tcp":
		l, err := listenTCP(ctx, rest, o)
		return []net.Listener{l}, err
	default:
		return activated(rest)
	}
}

func splitAddress(address string) (scheme, rest string, err error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		if strings.HasPrefix(address, "/") {
			return "unix", address, nil
		}
		return "", "", fmt.Errorf("invalid bind address (%s): it has to begin with unix://, tcp:// or fd://", address)
	}
	switch scheme {
	case "unix":
		if !filepath.IsAbs(rest) {
			return "", "", fmt.Errorf("invalid bind address (%s): the path of a unix socket has to be absolute", address)
		}
	case "tcp":
		if u, err := url.Parse(address); err != nil || u.Path != "" {
			return "", "", fmt.Errorf("invalid bind address (%s): it should be tcp://host:port", address)
		}
	case "fd":
	default:
		return "", "", fmt.Errorf("invalid bind address (%s): unsupported protocol %q", address, scheme)
	}
	return scheme, rest, nil
}

func listenUnix(ctx context.Context, path string, o ListenOptions) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	gid, err := groupID(o)
	if err != nil {
		return nil, err
	}
	// The mask keeps others out from the moment the socket exists.
	old := unix.Umask(0o777)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if gid >= 0 {
		err = os.Chown(path, 0, gid)
	}
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot set who may use %s: %w", path, err)
	}
	return l, nil
}

// dialTimeout is how long a daemon may take to accept a connection before its
// socket counts as stale. A live one accepts at once: the kernel does it.
const dialTimeout = 5 * time.Second

// removeStale makes room for a new socket, but never for a second daemon.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("cannot listen on %s: something that is not a socket is there", path)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("cannot listen on %s: another daemon answers there", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove the stale socket: %w", err)
	}
	return nil
}

// groupID returns the number of the group sockets belong to, -1 for none.
func groupID(o ListenOptions) (int, error) {
	if o.Group == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(o.Group); err == nil {
		return n, nil
	}
	g, err := user.LookupGroup(o.Group)
	if err != nil {
		if o.NeedGroup {
			return -1, fmt.Errorf("cannot give the socket to group %s: %w", o.Group, err)
		}
		return -1, nil
	}
	return strconv.Atoi(g.Gid)
}

func listenTCP(ctx context.Context, host string, o ListenOptions) (net.Listener, error) {
	port := plainPort
	if o.TLS {
		port = tlsPort
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	config, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on tcp://%s: %w", host, err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	if !o.VerifyClients && o.Log != nil {
		o.Log.Warn("whoever reaches this address is root on this machine: protect it with --tlsverify", "address", "tcp://"+l.Addr().String())
	}
	return l, nil
}

// tlsConfig reads the certificates. HTTP/2 is not offered: it cannot hand over
// a connection, which attach needs.
func tlsConfig(o ListenOptions) (*tls.Config, error) {
	if !o.TLS {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot load the TLS certificate: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if !o.VerifyClients {
		return config, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("cannot load the certificate authority: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cannot load the certificate authority: no certificate in %s", o.CAFile)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}
