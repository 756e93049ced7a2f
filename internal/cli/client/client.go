// Package client speaks the Engine API as a command line needs it: one request
// at a time over a Unix socket or TCP, with or without TLS.
//
// It owns the connection, version negotiation and the shape of the engine's
// errors. It must not know any command, and it stays away from net/http's
// Transport: the wire format is net/http's own, the connection handling is a
// page long, and a command pays for no goroutine it does not use.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Version is the newest Engine API version this client speaks.
const Version = "1.51"

// Options say which engine to talk to.
type Options struct {
	Host    string            // unix:///path or tcp://host:port
	TLS     *tls.Config       // nil: plain
	Version string            // API version to insist on; empty: Version, or what the engine speaks when that is older
	Headers map[string]string // sent with every request
	Agent   string            // User-Agent
	// Revive is asked once when nothing answers at Host. When it returns nil
	// the connection is tried again; otherwise its error is the caller's.
	Revive func(context.Context, *ConnectError) error
}

// maxIdle is how many connections a run needs at a time: for the attachment, the
// wait and the start.
const maxIdle = 3

// Client is safe for concurrent use. It keeps a few idle connections.
type Client struct {
	opts             Options
	network, address string

	mu      sync.Mutex // guards the fields below
	version string
	fixed   bool // version was asked for or negotiated
	idle    []*conn
	revived bool
}

// New parses the host; it does not connect.
func New(opts Options) (*Client, error) {
	c := &Client{opts: opts, version: Version}
	if opts.Version != "" {
		c.version, c.fixed = opts.Version, true
	}
	var err error
	c.network, c.address, err = splitHost(opts.Host, opts.TLS != nil)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Host is the address this client was made for.
func (c *Client) Host() string { return c.opts.Host }

// APIVersion is the version requests carry; it may become lower after the first
// answer of an older engine.
func (c *Client) APIVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// Close drops the idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed []error
	for _, cn := range c.idle {
		failed = append(failed, cn.Close())
	}
	c.idle = nil
	return errors.Join(failed...)
}

// Request is one call of the API. Path starts with a slash and has no version.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	// JSON is encoded as the body when it is not nil.
	JSON any
	// Stream is sent chunked as the body when it is not nil. Such a request is
	// never sent twice.
	Stream      io.Reader
	ContentType string // of Stream
	Header      http.Header
	Unversioned bool
	// Meanwhile is called once, while the engine works on the answer: for what
	// has to be done anyway. It is not called when nothing could be sent, and
	// not for a Stream.
	Meanwhile func()
}

// meanwhile calls the function the first time only.
func (r *Request) meanwhile() {
	if f := r.Meanwhile; f != nil {
		r.Meanwhile = nil
		f()
	}
}

// Do sends one request and returns the answer, whose body the caller closes.
// An answer of 400 and above is an *Error; an engine that cannot be reached is
// a *ConnectError. 304 is an answer.
func (c *Client) Do(ctx context.Context, r *Request) (*http.Response, error) {
	if r.Stream != nil && !r.Unversioned {
		if err := c.negotiate(ctx); err != nil {
			return nil, err
		}
	}
	resp, err := c.once(ctx, r)
	if err != nil && tooNew(err) && !r.Unversioned && r.Stream == nil {
		if err := c.negotiate(ctx); err != nil {
			return nil, err
		}
		return c.once(ctx, r)
	}
	return resp, err
}

// JSON sends one request and decodes the answer into out, unless that is nil.
func (c *Client) JSON(ctx context.Context, r *Request, out any) error {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw, err = io.ReadAll(resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("cannot read the engine's answer: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// negotiate lowers the version to what the engine speaks.
func (c *Client) negotiate(ctx context.Context) error {
	c.mu.Lock()
	fixed := c.fixed
	c.mu.Unlock()
	if fixed {
		return nil
	}
	resp, err := c.once(ctx, &Request{Method: http.MethodHead, Path: "/_ping", Unversioned: true})
	if err != nil {
		return err
	}
	resp.Body.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fixed = true
	if v := resp.Header.Get("Api-Version"); v != "" && VersionLess(v, c.version) {
		c.version = v
	}
	return nil
}

func (c *Client) once(ctx context.Context, r *Request) (*http.Response, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	cn, reused, err := c.connect(ctx, r.Stream == nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.roundTrip(ctx, cn, r, req)
	if err != nil && reused && ctx.Err() == nil && isStale(err) {
		// The engine closed the idle connection between two requests.
		if req, err = c.request(ctx, r); err != nil {
			return nil, err
		}
		if cn, _, err = c.connect(ctx, false); err != nil {
			return nil, err
		}
		resp, err = c.roundTrip(ctx, cn, r, req)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, r *Request) (*http.Request, error) {
	var body io.Reader
	if r.Stream != nil {
		body = r.Stream
	}
	if r.JSON != nil {
		b, err := json.Marshal(r.JSON)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	path := r.Path
	if !r.Unversioned {
		path = "/v" + c.APIVersion() + path
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://host", body)
	if err != nil {
		return nil, err
	}
	// Paths hold container names and file names: they are escaped here, once.
	req.URL = &url.URL{Scheme: "http", Host: c.hostHeader(), Path: path, RawQuery: r.Query.Encode()}
	req.Host = req.URL.Host
	for k, v := range c.opts.Headers {
		req.Header.Set(k, v)
	}
	for k, v := range r.Header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.opts.Agent)
	switch {
	case r.JSON != nil:
		req.Header.Set("Content-Type", "application/json")
	case r.Stream != nil:
		req.ContentLength = -1
		req.Header.Set("Content-Type", r.ContentType)
	case r.Method == http.MethodPost:
		req.Header.Set("Content-Type", "text/plain")
	}
	return req, nil
}

func (c *Client) hostHeader() string {
	if c.network == "unix" {
		return "api.gantry.localhost"
	}
	return c.address
}

// roundTrip owns cn until the answer's body is closed.
func (c *Client) roundTrip(ctx context.Context, cn *conn, r *Request, req *http.Request) (*http.Response, error) {
	stop := context.AfterFunc(ctx, func() { cn.Close() })
	sent := make(chan error, 1)
	send := func() error {
		w := bufio.NewWriter(cn)
		err := req.Write(w)
		if err == nil {
			err = w.Flush()
		}
		sent <- err
		return err
	}
	streaming := req.ContentLength < 0
	if streaming {
		// The engine may refuse before it has read the whole body.
		go send()
	} else if send() == nil {
		r.meanwhile()
	}
	resp, err := readResponse(cn, req)
	if err != nil {
		stop()
		cn.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		select {
		case werr := <-sent:
			if werr != nil {
				err = werr
			}
		default:
		}
		return nil, c.broken(err)
	}
	reusable := !resp.Close && !streaming && resp.StatusCode != http.StatusSwitchingProtocols
	resp.Body = &body{ReadCloser: resp.Body, release: func(drained bool) {
		if stop() && drained && reusable {
			c.put(cn)
			return
		}
		cn.Close()
	}}
	return resp, nil
}

// readResponse skips interim answers other than 101.
func readResponse(cn *conn, req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(cn.r, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
}

func (c *Client) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &brokenError{fmt.Errorf("the engine at %s closed the connection without an answer", c.opts.Host), err}
	}
	return &brokenError{fmt.Errorf("the connection to %s broke: %w", c.opts.Host, err), err}
}

// brokenError is a connection that ended in the middle of a request.
type brokenError struct {
	error
	cause error
}

func (e *brokenError) Unwrap() error { return e.cause }

func isStale(err error) bool {
	var b *brokenError
	return errors.As(err, &b)
}

// body gives its connection back when it is closed.
type body struct {
	io.ReadCloser
	drained bool
	once    sync.Once
	release func(drained bool)
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.drained = true
	}
	return n, err
}

func (b *body) Close() error {
	b.once.Do(func() {
		if !b.drained && b.ReadCloser == http.NoBody {
			b.drained = true
		}
		b.release(b.drained)
	})
	return nil
}

// conn is a connection with the reader that may hold bytes already read.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func (c *Client) put(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= maxIdle {
		cn.Close()
		return
	}
	c.idle = append(c.idle, cn)
}

// Prepare makes sure of n idle connections, as far as that is quick and goes
// well: a Unix socket only.
func (c *Client) Prepare(ctx context.Context, n int) {
	for c.network == "unix" && c.opts.TLS == nil {
		c.mu.Lock()
		enough := len(c.idle) >= min(n, maxIdle)
		c.mu.Unlock()
		if enough {
			return
		}
		nc, err := c.dial(ctx)
		if err != nil {
			return
		}
		c.put(&conn{nc, bufio.NewReader(nc)})
	}
}

func (c *Client) connect(ctx context.Context, reuse bool) (_ *conn, reused bool, _ error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 && reuse {
		cn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return cn, true, nil
	}
	c.mu.Unlock()
	nc, err := c.dial(ctx)
	if err != nil {
		var failed *ConnectError
		if errors.As(err, &failed) && c.mayRevive() {
			if err := c.opts.Revive(ctx, failed); err != nil {
				return nil, false, err
			}
			nc, err = c.dial(ctx)
		}
	}
	if err != nil {
		return nil, false, err
	}
	return &conn{nc, bufio.NewReader(nc)}, false, nil
}

func (c *Client) mayRevive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ok := c.opts.Revive != nil && !c.revived
	c.revived = true
	return ok
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second}
	nc, err := d.DialContext(ctx, c.network, c.address)
	if err == nil && c.opts.TLS != nil {
		cfg := c.opts.TLS.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = strings.Cut(c.address, ":")
		}
		tc := tls.Client(nc, cfg)
		if err = tc.HandshakeContext(ctx); err != nil {
			nc.Close()
		}
		nc = tc
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &ConnectError{Host: c.opts.Host, Err: err}
	}
	return nc, nil
}
