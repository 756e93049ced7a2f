package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

func (c *Client) once(ctx context.Context, r *Request) (*Response, error) {
	req, err := c.request(r)
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
		if req, err = c.request(r); err != nil {
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

// roundTrip owns cn until the answer's body is closed, which with 101 is a *Stream.
func (c *Client) roundTrip(ctx context.Context, cn *conn, r *Request, req *message) (*Response, error) {
	stop := context.AfterFunc(ctx, func() { cn.Close() })
	sent := make(chan error, 1)
	send := func() error {
		err := req.write(cn)
		sent <- err
		return err
	}
	streaming := req.stream != nil
	if streaming {
		// The engine may refuse before it has read the whole body.
		go send()
	} else if send() == nil {
		r.meanwhile()
	}
	resp, err := readResponse(cn.r, req)
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
	if resp.StatusCode == StatusSwitchingProtocols {
		stop() // ctx ends only the asking
		resp.Body = &Stream{cn}
		return resp, nil
	}
	reusable := !resp.close && !streaming
	resp.Body = &body{ReadCloser: resp.Body, release: func(drained bool) {
		if stop() && drained && reusable {
			c.put(cn)
			return
		}
		cn.Close()
	}}
	return resp, nil
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
	if err == io.ErrUnexpectedEOF {
		err = cutError{}
	}
	return n, err
}

// cutError is io.ErrUnexpectedEOF for a person to read.
type cutError struct{}

func (cutError) Error() string { return "the engine went away in the middle of its answer" }
func (cutError) Unwrap() error { return io.ErrUnexpectedEOF }

func (b *body) Close() error {
	b.once.Do(func() {
		_, none := b.ReadCloser.(noBody)
		b.release(b.drained || none)
	})
	return nil
}
