package portproxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// udpIdle is how long a flow is kept without a packet, as conntrack does
	// for a flow that was answered.
	udpIdle = 90 * time.Second
	// udpFlows is how many clients one port serves at once. Beyond it any
	// flow gives way: a flood of forged senders must not use up descriptors.
	udpFlows = 2048
)

// packets are buffers for one datagram, borrowed only while one is there.
var packets = sync.Pool{New: func() any { return new([65536]byte) }}

// udpListener relays datagrams. One goroutine reads from all clients, and one
// for each flow reads the answers.
type udpListener struct {
	conn   *net.UDPConn
	raw    syscall.RawConn
	target atomic.Pointer[netip.AddrPort]

	mu     sync.Mutex // guards what follows
	closed bool
	flows  map[flowKey]*flow
}

// flowKey is a client, and the address of the host it talks to: the answer has
// to come from there.
type flowKey struct {
	client netip.AddrPort
	local  netip.Addr
}

type flow struct {
	conn   *net.UDPConn
	target netip.AddrPort
	used   atomic.Int64 // Unix nanoseconds of the last packet either way
}

func listenUDP(addr, target netip.AddrPort) (*udpListener, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = wantLocal(raw, addr.Addr().Is6())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	l := &udpListener{conn: conn, raw: raw, flows: map[flowKey]*flow{}}
	l.target.Store(&target)
	go l.serve()
	return l, nil
}

// wantLocal makes the kernel tell with each datagram where it was sent to.
func wantLocal(raw syscall.RawConn, v6 bool) (err error) {
	raw.Control(func(fd uintptr) {
		if v6 {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	return err
}

func (l *udpListener) retarget(target netip.AddrPort) {
	l.target.Store(&target)
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, f := range l.flows {
		if f.target != target {
			f.conn.Close()
			delete(l.flows, key)
		}
	}
}

func (l *udpListener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.conn.Close()
	for _, f := range l.flows {
		f.conn.Close()
	}
}

// serve waits without a buffer: an idle port holds no memory.
func (l *udpListener) serve() {
	oob := make([]byte, 128)
	for {
		err := waitReadable(l.raw)
		if err == nil {
			err = l.forward(oob)
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func waitReadable(raw syscall.RawConn) error {
	return raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(ready, 0)
		return n > 0
	})
}

// forward passes one datagram on. A lost one is UDP's ordinary day: only that
// the port was closed is an error.
func (l *udpListener) forward(oob []byte) error {
	buf := packets.Get().(*[65536]byte)
	defer packets.Put(buf)
	n, noob, _, client, err := l.conn.ReadMsgUDPAddrPort(buf[:], oob)
	if err != nil {
		return err
	}
	f := l.flow(flowKey{client, localAddr(oob[:noob])})
	if f == nil {
		return nil
	}
	f.used.Store(time.Now().UnixNano())
	f.conn.Write(buf[:n])
	return nil
}

// flow returns the flow of the client, and begins it when there is none; nil
// when that cannot be done.
func (l *udpListener) flow(key flowKey) *flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.flows[key]; f != nil {
		return f
	}
	if l.closed {
		return nil
	}
	if len(l.flows) >= udpFlows {
		for old, f := range l.flows {
			f.conn.Close()
			delete(l.flows, old)
			break
		}
	}
	target := *l.target.Load()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
	if err != nil {
		return nil
	}
	f := &flow{conn: conn, target: target}
	l.flows[key] = f
	go l.answer(key, f)
	return f
}

// answer sends what the container says back to the client, until neither has
// said anything for udpIdle.
func (l *udpListener) answer(key flowKey, f *flow) {
	defer l.drop(key, f)
	raw, err := f.conn.SyscallConn()
	if err != nil {
		return
	}
	from := sourceControl(key.local)
	f.used.Store(time.Now().UnixNano())
	for {
		f.conn.SetReadDeadline(time.Unix(0, f.used.Load()).Add(udpIdle))
		err := waitReadable(raw)
		switch {
		case err == nil:
			err = l.answerOne(key, f, from)
			if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, f.used.Load())) < udpIdle:
			// The client has said something meanwhile.
		default:
			return
		}
	}
}

func (l *udpListener) answerOne(key flowKey, f *flow, from []byte) error {
	buf := packets.Get().(*[65536]byte)
	defer packets.Put(buf)
	n, err := f.conn.Read(buf[:])
	if err != nil {
		return err
	}
	f.used.Store(time.Now().UnixNano())
	l.conn.WriteMsgUDPAddrPort(buf[:n], from, key.client)
	return nil
}

func (l *udpListener) drop(key flowKey, f *flow) {
	f.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows[key] == f {
		delete(l.flows, key)
	}
}
