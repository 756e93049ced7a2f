// Package registry talks to registries in the OCI distribution protocol 1.1,
// and to the Docker registries of API version 2 that came before it.
//
// It owns the connection: which scheme a host is spoken to in, credentials and
// tokens, retries, and going on with a transfer where it was cut. What it hands
// out is checked: a manifest has the digest that was asked for, a blob reader
// never yields more bytes than the descriptor says. It knows nothing of images,
// tags kept locally, layers or the disk.
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"
)

// AuthConfig is what a client sends in the X-Registry-Auth header.
type AuthConfig = registrytypes.AuthConfig

// dockerHub is the host that serves the images whose names say docker.io.
const dockerHub = "registry-1.docker.io"

// Options configures a Client; the zero value is usable.
type Options struct {
	// Insecure lists registries, as host, host:port or CIDR, whose
	// certificates are not verified and which may be spoken to in plain HTTP.
	// Loopback addresses are always treated so.
	Insecure []string
	// UserAgent is sent with every request.
	UserAgent string
	// Attempts is how often a request is tried before its failure is
	// reported; 0 means 5.
	Attempts int
	// Backoff is the wait before the second attempt, doubled for each that
	// follows; 0 means 200 ms.
	Backoff time.Duration
	// IdleTimeout is how long a registry may send nothing before its
	// connection is given up; 0 means 30 s.
	IdleTimeout time.Duration

	// smallChunk is the size of the chunks of an upload that was refused for
	// being too large a request, in bytes. 100 MB is what the best known of
	// the proxies that do so allows.
	smallChunk int64
}

// Client holds the connections to registries. It is safe for concurrent use.
type Client struct {
	opts     Options
	secure   http.RoundTripper
	insecure http.RoundTripper // does not verify certificates

	mu      sync.Mutex        // guards schemes
	schemes map[string]string // of insecure hosts, as found by asking
}

// New returns a client.
func New(opts Options) *Client {
	if opts.Attempts <= 0 {
		opts.Attempts = 5
	}
	if opts.Backoff <= 0 {
		opts.Backoff = 200 * time.Millisecond
	}
	if opts.IdleTimeout <= 0 {
		opts.IdleTimeout = 30 * time.Second
	}
	if opts.smallChunk <= 0 {
		opts.smallChunk = 48 << 20
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "gantry"
	}
	transport := func(skipVerify bool) http.RoundTripper {
		return &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify},
			TLSHandshakeTimeout: 10 * time.Second,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 8,
			IdleConnTimeout:     30 * time.Second,
			// A blob is sent as it is stored; its digest is of those bytes.
			DisableCompression: true,
		}
	}
	return &Client{
		opts:     opts,
		secure:   transport(false),
		insecure: transport(true),
		schemes:  map[string]string{},
	}
}

// Repository is one repository of a registry as one caller may see it: tokens
// are kept for as long as the value lives, and are never shared.
type Repository struct {
	client *Client
	host   string // of the registry, with its port
	path   string // name of the repository within the registry
	origin *endpoint
}

// Repository reaches for the registry that serves the name. The credentials go
// to that registry, and the token server it names, and to nobody else.
func (c *Client) Repository(ctx context.Context, name reference.Named, cred *AuthConfig) (*Repository, error) {
	host := registryHost(reference.Domain(name))
	origin, err := c.origin(ctx, host, cred)
	if err != nil {
		return nil, err
	}
	return &Repository{client: c, host: host, path: reference.Path(name), origin: origin}, nil
}

// origin is the registry itself.
func (c *Client) origin(ctx context.Context, host string, cred *AuthConfig) (*endpoint, error) {
	scheme, transport := "https", c.secure
	if c.isInsecure(ctx, host) {
		var err error
		if scheme, err = c.findScheme(ctx, host); err != nil {
			return nil, err
		}
		transport = c.insecure
	}
	s := &sender{&http.Client{Transport: transport, CheckRedirect: checkRedirect}, c.opts}
	return &endpoint{
		client: c,
		host:   host,
		root:   scheme + "://" + host + "/v2",
		sender: s,
		auth: &authorizer{
			host: host, secure: scheme == "https", sender: s, insecure: c.isInsecure, cred: credentialOf(cred),
		},
	}, nil
}

// send asks the registry itself for something of the repository.
func (r *Repository) send(ctx context.Context, c call) (*http.Response, error) {
	return r.origin.do(ctx, r.path, c)
}

// maxRedirects is how often a request may be sent elsewhere.
const maxRedirects = 10

// checkRedirect takes the credentials off a request that leaves the server they
// are for, another port or scheme of the same host included, and never puts
// them back. A body that holds credentials does not go there at all.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("it redirects in a circle")
	}
	for _, hop := range append(via[1:len(via):len(via)], req) {
		if !sameOrigin(via[0].URL, hop.URL) {
			req.Header.Del("Authorization")
			if req.Body != nil && req.Body != http.NoBody {
				return fmt.Errorf("it sends what is meant for it to another server, %s", req.URL.Host)
			}
		}
	}
	return nil
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && originHost(a) == originHost(b)
}

func originHost(u *url.URL) string {
	port := u.Port()
	if port == "" && u.Scheme == "https" {
		port = "443"
	} else if port == "" {
		port = "80"
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// isInsecure tells whether a host may be spoken to without a verified
// certificate.
func (c *Client) isInsecure(ctx context.Context, host string) bool {
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	bare = strings.Trim(bare, "[]")
	if isLoopback(bare) {
		return true
	}
	var addrs []netip.Addr
	for _, entry := range c.opts.Insecure {
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			if entry == host || entry == bare {
				return true
			}
			continue
		}
		if addrs == nil {
			addrs = lookup(ctx, bare)
		}
		for _, addr := range addrs {
			if prefix.Contains(addr.Unmap()) {
				return true
			}
		}
	}
	return false
}

func isLoopback(bare string) bool {
	if bare == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(bare)
	return err == nil && addr.Unmap().IsLoopback()
}

func lookup(ctx context.Context, bare string) []netip.Addr {
	if addr, err := netip.ParseAddr(bare); err == nil {
		return []netip.Addr{addr}
	}
	addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", bare)
	return append([]netip.Addr{}, addrs...)
}

// findScheme asks an insecure registry in TLS and, where that is not spoken, in
// plain HTTP. An answer is remembered until a connection fails.
func (c *Client) findScheme(ctx context.Context, host string) (string, error) {
	c.mu.Lock()
	scheme, known := c.schemes[host]
	c.mu.Unlock()
	if known {
		return scheme, nil
	}
	var failure error
	for _, scheme := range []string{"https", "http"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
		if err != nil {
			return "", cannotReach(host, err)
		}
		req.Header.Set("User-Agent", c.opts.UserAgent)
		resp, err := c.insecure.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			c.mu.Lock()
			c.schemes[host] = scheme
			c.mu.Unlock()
			return scheme, nil
		}
		failure = err
	}
	return "", cannotReach(host, failure)
}

// forget drops what is known of a host's scheme: it may come back with another.
func (c *Client) forget(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.schemes, host)
}
