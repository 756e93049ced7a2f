package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/moby/moby/api/types"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
)

// hijack returns what a manager calls to take over the connection, once it is
// sure that the request can be served. From then on the connection is the
// manager's, to close as well.
func hijack(w *response, r *request) container.Hijack {
	return func(tty bool) (net.Conn, []byte, error) {
		return takeOver(w, r, upgradeHead(r, tty))
	}
}

// takeOver takes the connection away from the HTTP server and answers with the
// head. It returns what the client has sent beyond its request, too.
func takeOver(w *response, r *request, head string) (net.Conn, []byte, error) {
	conn, buf, err := w.Hijack()
	if err != nil {
		return nil, nil, errs.InvalidArgument("cannot take over the connection: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("cannot take over the connection: %w", err)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("cannot answer the client: %w", err)
	}
	untilRead(conn, r)
	unread, err := buffered(buf.Reader)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, unread, nil
}

// maxIgnoredBody is how much of a body is read only to be thrown away.
const maxIgnoredBody = 1 << 20

// skipBody reads the body that some clients send where none belongs, such as
// dockerode its options with an attach: what follows the request is input of the
// container, the body is not. It is done before the container is asked for: a
// start waits for those that are being attached, but not for their bodies.
func skipBody(r *request) error {
	if r.ContentLength <= 0 {
		return nil
	}
	if r.ContentLength > maxIgnoredBody {
		return errs.InvalidArgument("the request has a body of %d bytes, which nobody reads", r.ContentLength)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return errs.InvalidArgument("cannot read the body of the request: %w", err)
	}
	return nil
}

// upgradeHead is the head of the answer: that of an upgrade for a client that
// asked for one.
func upgradeHead(r *request, tty bool) string {
	if _, ok := r.Header["Upgrade"]; !ok {
		return "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n\r\n"
	}
	return "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + streamType(r, tty) + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
}

// streamType tells clients that can know it whether output has frames that say
// which stream it is of.
func streamType(r *request, tty bool) string {
	if tty || r.before(1_42) {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// buffered returns what the HTTP server has read beyond the request.
func buffered(r *bufio.Reader) ([]byte, error) {
	n := r.Buffered()
	if n == 0 {
		return nil, nil
	}
	unread := make([]byte, n)
	_, err := io.ReadFull(r, unread)
	return unread, err
}
