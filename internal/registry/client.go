// Package registry talks to registries in the OCI distribution protocol 1.1,
// and to the Docker registries of API version 2 that came before it.
//
// It owns the connection: which servers are asked for a name and in which order
// (the registry, its mirrors, neighbours, as Docker and containerd configure
// them), the scheme and the certificates a host is spoken to with, credentials
// and tokens, retries, and going on with a transfer where it was cut. What it hands
// out is checked: a manifest has the digest that was asked for, a blob reader
// never yields more bytes than the descriptor says. It knows nothing of images,
// tags kept locally, layers or the disk.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	registrytypes "github.com/moby/moby/api/types/registry"
)

// AuthConfig is what a client sends in the X-Registry-Auth header.
type AuthConfig = registrytypes.AuthConfig

// dockerHub is the host that serves the images whose names say docker.io.
const dockerHub = "registry-1.docker.io"

// Options configures a Client; the zero value is usable.
type Options struct {
	Settings
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
	// impatient waits for a server that is silent only once.
	impatient bool
}

// Client holds the connections to registries. It is safe for concurrent use.
type Client struct {
	opts     Options
	settings atomic.Pointer[Settings]

	mu         sync.Mutex                 // guards what follows
	schemes    map[string]string          // of insecure hosts, as found by asking
	transports map[string]*http.Transport // by the key of their link
	resting    map[string]time.Time       // mirrors and neighbours that did not answer, and until when they are left alone
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
	c := &Client{opts: opts}
	c.Configure(opts.Settings)
	return c
}

// Configure takes over other settings, which Check has passed. What is under
// way goes on with the old ones.
func (c *Client) Configure(s Settings) {
	if s.HostDirs == nil {
		s.HostDirs = DefaultHostDirs()
	}
	c.settings.Store(&s)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
	c.transports, c.schemes, c.resting = map[string]*http.Transport{}, map[string]string{}, map[string]time.Time{}
}

// maxRedirects is how often a request may be sent elsewhere.
const maxRedirects = 10

// checkRedirect takes what is for one server only off a request that leaves it,
// another port or scheme of the same host included, and never puts it back. A
// body that may hold credentials does not go there at all.
func checkRedirect(private http.Header) func(req *http.Request, via []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return errors.New("it redirects in a circle")
		}
		for _, hop := range append(via[1:len(via):len(via)], req) {
			if sameOrigin(via[0].URL, hop.URL) {
				continue
			}
			req.Header.Del("Authorization")
			for key := range private {
				req.Header.Del(key)
			}
			if req.Body != nil && req.Body != http.NoBody {
				return fmt.Errorf("it sends what is meant for it to another server, %s", req.URL.Host)
			}
		}
		return nil
	}
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
// certificate, because a person said so or because it is this machine.
func (c *Client) isInsecure(ctx context.Context, host string) bool {
	return c.isListedInsecure(ctx, host) || isLoopback(bareHost(host))
}

func bareHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.Trim(host, "[]")
}

// isListedInsecure tells whether a person said so.
func (c *Client) isListedInsecure(ctx context.Context, host string) bool {
	bare := bareHost(host)
	var addrs []netip.Addr
	for _, entry := range c.settings.Load().Insecure {
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
// plain HTTP, and waits for each answer as long as patience says. An answer is
// remembered until a connection fails.
func (c *Client) findScheme(ctx context.Context, host string, transport *http.Transport, patience time.Duration) (string, error) {
	c.mu.Lock()
	scheme, known := c.schemes[host]
	c.mu.Unlock()
	if known {
		return scheme, nil
	}
	var failure error
	for _, scheme := range []string{"https", "http"} {
		status, err := c.tryScheme(ctx, scheme, host, transport, patience)
		if err == nil {
			if scheme == "http" && status == http.StatusBadRequest {
				break // it does speak TLS, and would not with us
			}
			c.mu.Lock()
			c.schemes[host] = scheme
			c.mu.Unlock()
			return scheme, nil
		}
		failure = err
		var op *net.OpError
		if ctx.Err() != nil || errors.As(err, &op) && op.Op == "dial" {
			break // nobody is there in any language
		}
	}
	return "", cannotReach(host, failure)
}

// tryScheme asks for the version of the protocol, and returns the status of the
// answer.
func (c *Client) tryScheme(ctx context.Context, scheme, host string, transport *http.Transport, patience time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// forget drops what is known of a host's scheme: it may come back with another.
func (c *Client) forget(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.schemes, host)
}
