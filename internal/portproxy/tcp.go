package portproxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// dialTimeout is how long a container's address may not answer at all.
	// A port nobody listens on is refused at once.
	dialTimeout = 10 * time.Second
	// acceptPause is waited when no descriptor is left for a connection.
	acceptPause = 50 * time.Millisecond
)

// tcpListener relays connections. One goroutine waits for them; each has two
// more while it lasts, and the kernel moves the bytes (splice).
type tcpListener struct {
	ln     *net.TCPListener
	target atomic.Pointer[netip.AddrPort]
	share  share

	mu     sync.Mutex // guards what follows
	closed bool
	conns  map[*net.TCPConn]struct{} // both ends of all connections
}

func listenTCP(addr, target netip.AddrPort, b *budget) (*tcpListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	ln, err := lc.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	l := &tcpListener{ln: ln.(*net.TCPListener), conns: map[*net.TCPConn]struct{}{}, share: share{budget: b}}
	l.target.Store(&target)
	go l.accept()
	return l, nil
}

func (l *tcpListener) retarget(target netip.AddrPort) { l.target.Store(&target) }

func (l *tcpListener) close() {
	l.ln.Close()
	l.share.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.conns {
		c.Close()
	}
}

func (l *tcpListener) accept() {
	for {
		client, err := l.ln.AcceptTCP()
		if err == nil {
			if !l.share.take() {
				client.Close()
				return
			}
			go l.relay(client)
			continue
		}
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return
		}
		time.Sleep(acceptPause)
	}
}

// track says whether the listener is open; what it tracks is closed with it.
func (l *tcpListener) track(c *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.conns[c] = struct{}{}
	}
	return !l.closed
}

func (l *tcpListener) finish(c *net.TCPConn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	c.Close()
}

func (l *tcpListener) relay(client *net.TCPConn) {
	defer l.share.give()
	defer l.finish(client)
	if !l.track(client) {
		return
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	c, err := dialer.Dial("tcp", l.target.Load().String())
	if err != nil {
		// The client learns it as it would without a proxy: by a reset.
		client.SetLinger(0)
		return
	}
	server := c.(*net.TCPConn)
	defer l.finish(server)
	if !l.track(server) {
		return
	}
	back := make(chan struct{})
	go func() {
		transfer(client, server)
		close(back)
	}()
	transfer(server, client)
	<-back
}

// transfer copies one direction. Its end is passed on without ending the other.
func transfer(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// A reset on one side must not look like an orderly end on the other.
		to.SetLinger(0)
		to.Close()
		from.Close()
		return
	}
	to.CloseWrite()
	from.CloseRead()
}
