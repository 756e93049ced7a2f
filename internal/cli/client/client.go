// Package client speaks the Engine API as a command line needs it: one request
// at a time over a Unix socket or TCP, with or without TLS.
//
// It owns the connection, version negotiation and the shape of the engine's
// errors. It must not know any command, and it stays away from net/http:
// connections, the wire format and TLS cost the start of every command more there
// than the pages they take here, and a command pays for no goroutine it does not
// use.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Version is the newest Engine API version this client speaks.
const Version = "1.51"

// Options say which engine to talk to.
type Options struct {
	Host    string            // unix:///path or tcp://host:port
	Secure  Secure            // nil: plain
	Version string            // API version to insist on; empty: Version, or what the engine speaks when that is older
	Headers map[string]string // sent with every request
	Agent   string            // User-Agent
	// Revive is asked once when nothing answers at Host, and never after
	// something did. When it returns nil the connection is tried again; otherwise
	// its error is the caller's.
	Revive func(context.Context, *ConnectError) error
}

// Secure makes a connection one of TLS, of which the other end shows that it is
// server. It does not close nc.
type Secure func(ctx context.Context, nc net.Conn, server string) (net.Conn, error)

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
	c.network, c.address, err = splitHost(opts.Host, opts.Secure != nil)
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

// Do sends one request and returns the answer, whose body the caller closes.
// An answer of 400 and above is an *Error; an engine that cannot be reached is
// a *ConnectError. 304 is an answer.
func (c *Client) Do(ctx context.Context, r *Request) (*Response, error) {
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

// Drain reads an answer to its end and closes it, so that its connection can be
// used again.
func Drain(resp *Response) {
	_, _ = io.Copy(io.Discard, resp.Body) // a connection that breaks is not used again
	resp.Body.Close()
}

// negotiate lowers the version to what the engine speaks.
func (c *Client) negotiate(ctx context.Context) error {
	c.mu.Lock()
	fixed := c.fixed
	c.mu.Unlock()
	if fixed {
		return nil
	}
	resp, err := c.once(ctx, &Request{Method: MethodHead, Path: "/_ping", Unversioned: true})
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
