package client

import (
	"bufio"
	"context"
	"errors"
	"net"
	"time"
)

// maxIdle is how many connections a run needs at a time: for the attachment, the
// wait and the start.
const maxIdle = 3

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
	for c.network == "unix" && c.opts.Secure == nil {
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
	c.mu.Lock()
	c.revived = true // who ended it now wants it to be away
	c.mu.Unlock()
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
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	nc, err := c.dialPlain(ctx)
	if err == nil && c.opts.Secure != nil {
		plain := nc
		server, _, _ := net.SplitHostPort(c.address)
		if nc, err = c.opts.Secure(ctx, plain, server); err != nil {
			plain.Close()
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &ConnectError{Host: c.opts.Host, Err: err}
	}
	return nc, nil
}

func (c *Client) dialPlain(ctx context.Context) (net.Conn, error) {
	if c.network == "unix" {
		// It answers at once, or fails: nothing to give up, no name to look up, no time to
		// watch, which is half of what a Dialer does.
		return net.DialUnix(c.network, nil, &net.UnixAddr{Name: c.address, Net: c.network})
	}
	d := net.Dialer{Timeout: 30 * time.Second}
	return d.DialContext(ctx, c.network, c.address)
}
