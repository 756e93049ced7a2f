package portproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// free returns a port of the loopback nobody uses.
func free(t testing.TB, proto string) uint16 {
	t.Helper()
	if proto == "udp" {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return uint16(c.LocalAddr().(*net.UDPAddr).Port)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// server listens on the loopback and gives each connection to serve.
func server(t testing.TB, serve func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func tcp(port, target uint16) Mapping {
	return Mapping{Proto: "tcp", HostIP: "127.0.0.1", HostPort: port, TargetIP: "127.0.0.1", TargetPort: target}
}

func newProxy(t testing.TB) *Proxy {
	p := New()
	t.Cleanup(p.Close)
	return p
}

func dial(t testing.TB, port uint16) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// The server answers only after the client has ended its half: what `nc` and
// HTTP/1.0 do.
func TestTCPHalfClose(t *testing.T) {
	target := server(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(all))
		c.Close()
	})
	p, port := newProxy(t), free(t, "tcp")
	if err := p.Set("a", []Mapping{tcp(port, target)}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, port)
	sent := bytes.Repeat([]byte("half closed "), 200_000)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, bytes.ToUpper(sent)) {
		t.Fatalf("got %d bytes of %d, %v", len(got), len(sent), err)
	}
}

// A container that is not listening, and one that resets, must not look like
// one that answers with nothing.
func TestTCPResetIsPassedOn(t *testing.T) {
	resets := server(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
		c.SetLinger(0)
		c.Close()
	})
	p := newProxy(t)
	for name, target := range map[string]uint16{"refused": free(t, "tcp"), "reset": resets} {
		port := free(t, "tcp")
		if err := p.Set(name, []Mapping{tcp(port, target)}); err != nil {
			t.Fatal(err)
		}
		// It may come before Dial has looked.
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err = c.Write([]byte("x")); err == nil {
				_, err = io.ReadAll(c)
			}
			c.Close()
		}
		if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
			t.Errorf("%s: got %v, want a reset", name, err)
		}
	}
}

func TestSetIsAllOrNothing(t *testing.T) {
	p, target := newProxy(t), server(t, func(c *net.TCPConn) { c.Close() })
	a, b, taken := free(t, "tcp"), free(t, "tcp"), free(t, "tcp")
	if err := p.Set("one", []Mapping{tcp(a, target)}); err != nil {
		t.Fatal(err)
	}
	m := tcp(taken, target)
	m.Name = "web"
	if err := p.Set("two", []Mapping{m}); err != nil {
		t.Fatal(err)
	}
	err := p.Set("one", []Mapping{tcp(b, target), tcp(taken, target)})
	want := fmt.Sprintf(`Bind for 127.0.0.1:%d failed: port is already allocated by container "web"`, taken)
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", b)); err != nil {
		t.Errorf("a port of a failed Set is still open: %v", err)
	} else {
		l.Close()
	}
	dial(t, a)
	// Another address, but one that covers the port another has.
	m = tcp(taken, target)
	m.HostIP = "0.0.0.0"
	if err := p.Set("one", []Mapping{m}); err == nil || !strings.HasSuffix(err.Error(), `allocated by container "web"`) {
		t.Errorf("0.0.0.0 beside 127.0.0.1: %v", err)
	}
	dial(t, a)
	if err := p.Set("one", []Mapping{tcp(b, target), tcp(b, target)}); err == nil {
		t.Error("the same port twice was accepted")
	}
}

func TestHolderIsAProcess(t *testing.T) {
	p := newProxy(t)
	taken := server(t, func(*net.TCPConn) {})
	want := fmt.Sprintf("failed: port is already allocated by process %d (portproxy.test)", os.Getpid())
	if err := p.Set("one", []Mapping{tcp(taken, 1)}); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("tcp: got %v, want %s", err, want)
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := Mapping{Proto: "udp", HostIP: "127.0.0.1", HostPort: uint16(c.LocalAddr().(*net.UDPAddr).Port), TargetIP: "127.0.0.1", TargetPort: 1}
	if err := p.Set("one", []Mapping{m}); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("udp: got %v, want %s", err, want)
	}
}

func TestBadMappings(t *testing.T) {
	p := newProxy(t)
	for want, m := range map[string]Mapping{
		"cannot listen on x:1/tcp: invalid argument":                            {Proto: "tcp", HostIP: "x", HostPort: 1, TargetIP: "127.0.0.1", TargetPort: 1},
		"cannot listen on 127.0.0.1:0/tcp: invalid argument":                    {Proto: "tcp", HostIP: "127.0.0.1", TargetIP: "127.0.0.1", TargetPort: 1},
		"cannot listen on 127.0.0.1:1/tcp: invalid argument":                    {Proto: "tcp", HostIP: "127.0.0.1", HostPort: 1, TargetPort: 1},
		"cannot listen on 127.0.0.1:1/icmp: protocol not supported":             {Proto: "icmp", HostIP: "127.0.0.1", HostPort: 1, TargetIP: "127.0.0.1", TargetPort: 1},
		"cannot listen on 203.0.113.9:1/tcp: cannot assign requested address":   {Proto: "tcp", HostIP: "203.0.113.9", HostPort: 1, TargetIP: "127.0.0.1", TargetPort: 1},
		"cannot listen on [2001:db8::9]:1/udp: cannot assign requested address": {Proto: "udp", HostIP: "2001:db8::9", HostPort: 1, TargetIP: "127.0.0.1", TargetPort: 1},
	} {
		if err := p.Set("a", []Mapping{m}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A restarted container has another address: its open port stays, and closing
// the port ends what came through it.
func TestRetargetAndClose(t *testing.T) {
	one := server(t, func(c *net.TCPConn) { c.Write([]byte("1")) })
	two := server(t, func(c *net.TCPConn) { c.Write([]byte("2")) })
	p, port := newProxy(t), free(t, "tcp")
	var last *net.TCPConn
	for want, target := range map[string]uint16{"1": one, "2": two} {
		if err := p.Set("a", []Mapping{tcp(port, target)}); err != nil {
			t.Fatal(err)
		}
		last = dial(t, port)
		got := make([]byte, 1)
		if _, err := io.ReadFull(last, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	if got := p.Mappings(); len(got) != 1 || len(got["a"]) != 1 || got["a"][0].HostPort != port {
		t.Errorf("Mappings: %v", got)
	}
	if err := p.Set("a", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection outlived its port: %v", err)
	}
	if _, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
		t.Error("the port is still open")
	}
}

// udpEcho answers each datagram with it and the sender's port.
func udpEcho(t testing.TB) uint16 {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s from %d", buf[:n], from.Port()), from)
		}
	}()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

// Clients are told apart, and answered from the address they asked: a client
// with a connected socket sees nothing else.
func TestUDPFlows(t *testing.T) {
	p, port := newProxy(t), free(t, "udp")
	m := Mapping{Proto: "udp", HostIP: "0.0.0.0", HostPort: port, TargetIP: "127.0.0.1", TargetPort: udpEcho(t)}
	if err := p.Set("a", []Mapping{m}); err != nil {
		t.Fatal(err)
	}
	ask := func(c net.Conn, text string) string {
		t.Helper()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 65536)
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return string(buf[:n])
	}
	seen := map[string]bool{}
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.1"} {
		c, err := net.Dial("udp4", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		first := ask(c, "hello")
		if again := ask(c, "hello"); again != first {
			t.Errorf("one client came from two ports: %q, %q", first, again)
		}
		if seen[first] {
			t.Errorf("two clients share a flow: %q", first)
		}
		seen[first] = true
		big := strings.Repeat("x", 60_000)
		if got := ask(c, big); !strings.HasPrefix(got, big+" from ") {
			t.Errorf("a datagram of 60000 bytes came back as one of %d", len(got))
		}
	}
}

func TestUDPv6(t *testing.T) {
	if c, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 loopback here: %v", err)
	} else {
		c.Close()
	}
	p, port := newProxy(t), free(t, "udp")
	m := Mapping{Proto: "udp", HostIP: "::", HostPort: port, TargetIP: "127.0.0.1", TargetPort: udpEcho(t)}
	v4 := m
	v4.HostIP = "0.0.0.0"
	if err := p.Set("a", []Mapping{m, v4}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp6", fmt.Sprintf("[::1]:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte("six"))
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "six from") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}

// A flood of senders must not use up the descriptors of the process.
func TestUDPFlowsAreBounded(t *testing.T) {
	l, err := listenUDP(netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for i := range udpFlows + 50 {
		if l.flow(flowKey{client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}), 1)}) == nil {
			t.Skip("the limit of open files is lower than the limit of flows")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flows) != udpFlows {
		t.Errorf("%d flows, want %d", len(l.flows), udpFlows)
	}
}

func TestNothingIsLeft(t *testing.T) {
	files := func() int {
		d, _ := os.ReadDir("/proc/self/fd")
		return len(d)
	}
	p, target := newProxy(t), server(t, func(c *net.TCPConn) { io.Copy(c, c); c.Close() })
	if err := p.Set("warm", []Mapping{tcp(free(t, "tcp"), target)}); err != nil {
		t.Fatal(err)
	}
	p.Set("warm", nil)
	before, goroutines := files(), runtime.NumGoroutine()
	for range 20 {
		port, udp := free(t, "tcp"), free(t, "udp")
		err := p.Set("a", []Mapping{tcp(port, target), {Proto: "udp", HostIP: "127.0.0.1", HostPort: udp, TargetIP: "127.0.0.1", TargetPort: 9},
			{Proto: "sctp", HostIP: "127.0.0.1", HostPort: port, TargetIP: "127.0.0.1", TargetPort: 9}})
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, port)
		c.Write([]byte("x"))
		io.ReadFull(c, make([]byte, 1))
		p.Set("a", nil)
		c.Close()
	}
	deadline := time.Now().Add(5 * time.Second)
	for files() > before || runtime.NumGoroutine() > goroutines {
		if time.Now().After(deadline) {
			t.Fatalf("%d files and %d goroutines, %d and %d before", files(), runtime.NumGoroutine(), before, goroutines)
		}
		runtime.Gosched()
	}
}

func TestParseSocket(t *testing.T) {
	for line, want := range map[string]string{
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0": "127.0.0.1:8080 0A 12345 true",
		"   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 77 2 0 0":                     "[::1]:80 07 77 true",
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode":                                 "invalid AddrPort   false",
		"": "invalid AddrPort   false",
	} {
		a, state, inode, ok := parseSocket(line)
		if got := fmt.Sprintf("%v %s %s %v", a, state, inode, ok); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func BenchmarkTCPThroughput(b *testing.B) {
	target := server(b, func(c *net.TCPConn) { io.Copy(io.Discard, c); c.Close() })
	p, port := newProxy(b), free(b, "tcp")
	if err := p.Set("a", []Mapping{tcp(port, target)}); err != nil {
		b.Fatal(err)
	}
	c := dial(b, port)
	c.SetDeadline(time.Time{})
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTCPConnection(b *testing.B) {
	target := server(b, func(c *net.TCPConn) { c.Write([]byte("x")); c.Close() })
	p, port := newProxy(b), free(b, "tcp")
	if err := p.Set("a", []Mapping{tcp(port, target)}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			b.Fatal(err)
		}
		io.ReadAll(c)
		c.Close()
	}
}

// BenchmarkIdlePort prints what an open port costs while nobody uses it. One
// operation opens and closes 200 of each protocol.
func BenchmarkIdlePort(b *testing.B) {
	const owners = 200
	p := newProxy(b)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		for n := range owners {
			ip := netip.AddrFrom4([4]byte{127, 1, 1, byte(n + 1)}).String()
			err := p.Set(strconv.Itoa(n), []Mapping{
				{Proto: "tcp", HostIP: ip, HostPort: 20000, TargetIP: "127.0.0.1", TargetPort: 9},
				{Proto: "udp", HostIP: ip, HostPort: 20000, TargetIP: "127.0.0.1", TargetPort: 9}})
			if err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		p.Close()
	}
	b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/(2*owners), "B/port")
}
