package client

import (
	"context"
	"io"
)

// Relay carries bytes between r and w and a connection of its own to the
// engine, in both directions, until the engine ends it.
func (c *Client) Relay(ctx context.Context, r io.Reader, w io.Writer) error {
	cn, _, err := c.connect(ctx, false)
	if err != nil {
		return err
	}
	defer cn.Close()
	go func() {
		_, _ = io.Copy(cn.Conn, r)
		// What we read from ended; the engine may still have something to say.
		if h, ok := cn.Conn.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	}()
	_, err = io.Copy(w, cn.r)
	return err
}
