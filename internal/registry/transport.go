package registry

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Bounds of connections.
const (
	dialPatience  = 30 * time.Second
	idleConns     = 32       // kept for each server: what several pulls at once use
	connBuffer    = 64 << 10 // bytes read or written at a time where the caller's buffer is not used
	idleConnLimit = 30 * time.Second
)

// link is how one server is connected to. Links of the same key are the same,
// and share their connections.
type link struct {
	tls      *tls.Config
	patience time.Duration // of a dial
	ownCert  bool          // the configuration has a certificate that says who we are
	madeOf   string        // what the TLS configuration was made of
}

func (l *link) key() string {
	return fmt.Sprint(l.patience, l.tls.InsecureSkipVerify, l.madeOf)
}

// newLink reads the files of a TLS configuration. Insecure is to be verified
// all the same where the configuration says so.
func newLink(files tlsFiles, insecure bool, patience time.Duration) (*link, error) {
	l := &link{tls: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}, patience: patience}
	if l.patience == 0 {
		l.patience = dialPatience
	}
	if files.skipVerify != nil {
		l.tls.InsecureSkipVerify = *files.skipVerify
	}
	sum := sha256.New()
	for _, name := range files.authorities {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, errs.System("cannot read a certificate authority: %w", err)
		}
		sum.Write(data)
		if l.tls.RootCAs == nil {
			if l.tls.RootCAs, err = x509.SystemCertPool(); err != nil {
				l.tls.RootCAs = x509.NewCertPool() // a machine without any
			}
		}
		if !l.tls.RootCAs.AppendCertsFromPEM(data) {
			return nil, errs.InvalidArgument("there is no certificate in %s", name)
		}
	}
	for _, pair := range files.pairs {
		cert, data, err := readPair(pair)
		if err != nil {
			return nil, err
		}
		sum.Write(data)
		l.tls.Certificates = append(l.tls.Certificates, cert)
		l.ownCert = true
	}
	if !files.empty() {
		l.madeOf = hex.EncodeToString(sum.Sum(nil))
	}
	return l, nil
}

func readPair(pair [2]string) (tls.Certificate, []byte, error) {
	cert, err := os.ReadFile(pair[0])
	if err != nil {
		return tls.Certificate{}, nil, errs.System("cannot read a client certificate: %w", err)
	}
	key := cert
	if pair[1] != "" {
		if key, err = os.ReadFile(pair[1]); err != nil {
			return tls.Certificate{}, nil, errs.System("cannot read the key of a client certificate: %w", err)
		}
	}
	both, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, nil, errs.InvalidArgument("client certificate %s cannot be used: %w", pair[0], err)
	}
	return both, append(cert, key...), nil
}

// anonymous is the same without what says who we are.
func (l *link) anonymous() *link {
	if !l.ownCert {
		return l
	}
	other := &link{tls: l.tls.Clone(), patience: l.patience, madeOf: "anonymous " + l.madeOf}
	other.tls.Certificates = nil
	return other
}

// transport returns the connections of a link.
func (c *Client) transport(l *link) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := l.key()
	t, ok := c.transports[key]
	if !ok {
		t = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: l.patience, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:     l.tls,
			TLSHandshakeTimeout: 10 * time.Second,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: idleConns,
			IdleConnTimeout:     idleConnLimit,
			ReadBufferSize:      connBuffer,
			WriteBufferSize:     connBuffer,
			// A blob is sent as it is stored; its digest is of those bytes.
			DisableCompression: true,
		}
		c.transports[key] = t
	}
	return t
}

// byHost sends what is for one server over its own connections, and what it
// redirects to others over connections that do not say who we are.
type byHost struct {
	host        string
	own, others *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *byHost) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == t.host {
		return t.own.RoundTrip(req)
	}
	return t.others.RoundTrip(req)
}
