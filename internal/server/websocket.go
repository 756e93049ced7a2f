package server

import (
	"encoding/binary"
	"errors"
	"io"
	"net"

	"golang.org/x/net/websocket"
)

// attachContainerWS is attachContainer over a WebSocket. Its messages have no
// frames: output and errors come as one stream.
func (s *Server) attachContainerWS(w *response, r *request) error {
	o := attachOptions(r)
	if r.before(1_42) {
		o.Stdin, o.Stdout, o.Stderr = true, true, true
	}
	opened, done, ended := make(chan *websocket.Conn), make(chan struct{}), make(chan struct{})
	err := s.containers.Attach(r.Context(), r.name, o, func(tty bool) (net.Conn, []byte, error) {
		server := websocket.Server{Handler: func(c *websocket.Conn) {
			opened <- c
			<-done // the connection lives as long as this function
		}}
		go func() {
			defer close(ended)
			server.ServeHTTP(w, r.Request)
		}()
		select {
		case <-ended:
			return nil, nil, errors.New("cannot open the WebSocket: the handshake failed")
		case c := <-opened:
			if !r.before(1_28) {
				c.PayloadType = websocket.BinaryFrame
			}
			return &wsConn{Conn: c, frames: !tty}, nil, nil
		}
	})
	close(done)
	if w.started {
		<-ended
	}
	return err
}

// wsConn takes the frames off what is written to it.
type wsConn struct {
	*websocket.Conn
	frames bool
	head   []byte // the part of a frame's head that has arrived
	left   int    // bytes of the present frame still to come
}

func (c *wsConn) Write(p []byte) (int, error) {
	if !c.frames {
		return c.Conn.Write(p)
	}
	written := len(p)
	for len(p) > 0 {
		if c.left == 0 {
			n := min(8-len(c.head), len(p))
			c.head, p = append(c.head, p[:n]...), p[n:]
			if len(c.head) == 8 {
				c.left, c.head = int(binary.BigEndian.Uint32(c.head[4:])), c.head[:0]
			}
			continue
		}
		n := min(c.left, len(p))
		if _, err := c.Conn.Write(p[:n]); err != nil {
			return 0, err
		}
		c.left, p = c.left-n, p[n:]
	}
	return written, nil
}

// ReadFrom keeps io.Copy from going around Write.
func (c *wsConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}
