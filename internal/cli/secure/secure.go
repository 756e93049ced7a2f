// Package secure is the TLS of a client. It is a package of its own because it is
// linked only into programs that are to speak TLS: see cmd/gantry.
package secure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// Load reads the client's certificate, key and authorities. Files that are
// absent are left out when optional is set, as they are when only a directory
// was named.
func Load(caFile, certFile, keyFile string, verify, optional bool) (client.Secure, error) {
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
	return func(ctx context.Context, nc net.Conn, server string) (net.Conn, error) {
		cfg := cfg.Clone()
		cfg.ServerName = server
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		return tc, nil
	}, nil
}
