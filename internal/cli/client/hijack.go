package client

import (
	"context"
	"fmt"
)

// Stream is a connection that left HTTP: what is written goes to the
// container's standard input, what is read comes from its output.
type Stream struct {
	cn *conn
}

func (s *Stream) Read(p []byte) (int, error)  { return s.cn.r.Read(p) }
func (s *Stream) Write(p []byte) (int, error) { return s.cn.Write(p) }

// Close ends both directions.
func (s *Stream) Close() error { return s.cn.Close() }

// CloseWrite tells the container that its standard input has ended.
func (s *Stream) CloseWrite() error {
	if h, ok := s.cn.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// Hijack sends a request that turns its connection into a stream. The stream
// lives until it is closed; ctx ends only the asking.
func (c *Client) Hijack(ctx context.Context, r *Request) (*Stream, error) {
	s, err := c.hijack(ctx, r)
	if err != nil && tooNew(err) {
		if err := c.negotiate(ctx); err != nil {
			return nil, err
		}
		return c.hijack(ctx, r)
	}
	return s, err
}

func (c *Client) hijack(ctx context.Context, r *Request) (*Stream, error) {
	for reuse := true; ; reuse = false {
		cn, reused, err := c.connect(ctx, reuse)
		if err != nil {
			return nil, err
		}
		s, err := c.upgrade(ctx, cn, r)
		if err == nil || !reused || ctx.Err() != nil || !isStale(err) {
			return s, err
		}
		// The engine had closed the idle connection.
	}
}

// upgrade owns cn until it returns a stream.
func (c *Client) upgrade(ctx context.Context, cn *conn, r *Request) (*Stream, error) {
	r.Upgrade = "tcp"
	req, err := c.request(r)
	if err != nil {
		cn.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { cn.Close() })
	defer stop()
	err = req.write(cn.Conn)
	if err == nil {
		r.meanwhile()
		var resp *Response
		if resp, err = readResponse(cn.r, req); err == nil {
			return upgraded(cn, resp)
		}
	}
	cn.Close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, c.broken(err)
}

func upgraded(cn *conn, resp *Response) (*Stream, error) {
	switch {
	case resp.StatusCode >= 400:
		defer cn.Close()
		return nil, readError(resp)
	case resp.StatusCode != StatusSwitchingProtocols && resp.StatusCode != StatusOK:
		defer cn.Close()
		return nil, fmt.Errorf("cannot attach: the engine answered %s", resp.Status)
	}
	return &Stream{cn}, nil
}
