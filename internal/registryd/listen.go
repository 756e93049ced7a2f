package registryd

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

func (s *Server) listen(c *Config) error {
	for _, address := range c.Listen {
		l, err := listen(address)
		if err != nil {
			return err
		}
		if _, tcp := l.(*net.TCPListener); tcp && c.tls() {
			l = tls.NewListener(l, s.certs.config())
		}
		s.public = append(s.public, l)
	}
	if c.Metrics.Listen != "" {
		l, err := listen(c.Metrics.Listen)
		if err != nil {
			return err
		}
		s.private = append(s.private, l)
	}
	return nil
}

func listen(address string) (net.Listener, error) {
	proto, at, err := network(address)
	if err != nil {
		return nil, err
	}
	if proto == "unix" {
		if err := removeStale(at); err != nil {
			return nil, err
		}
	}
	config := net.ListenConfig{}
	if proto == "tcp" {
		config.Control = limitStalls
	}
	l, err := config.Listen(context.Background(), proto, at)
	if err != nil {
		return nil, errs.Unavailable("cannot listen on %s: %w", address, err)
	}
	return l, nil
}

// stall is how long a client may leave what is sent to it unread. Tests wait less.
var stall = 5 * time.Minute

// limitStalls has the kernel end connections whose client acknowledges nothing,
// or says that it has no room for anything, for that long: a blob goes to the
// socket in the kernel, where no deadline of ours is renewed. The connections
// inherit it from the listener (tcp(7), TCP_USER_TIMEOUT).
func limitStalls(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stall/time.Millisecond))
	}); cerr != nil {
		return cerr
	}
	return err
}

// removeStale removes the socket of a process that is gone.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil // listening says what is wrong
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return errs.Conflict("another process listens on %s", path)
	}
	if err := os.Remove(path); err != nil {
		return errs.System("cannot remove the socket of a process that is gone: %w", err)
	}
	return nil
}
