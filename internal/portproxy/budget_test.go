package portproxy

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"
)

// A port that is flooded leaves room for the others: all of them are served by
// one process.
func TestFloodedPortLeavesRoom(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	p := New()
	defer p.Close()
	p.budget = newBudget(20)
	ports := map[string]uint16{}
	for _, owner := range []string{"flooded", "other"} {
		port := freePort(t)
		ports[owner] = port
		m := Mapping{Proto: "tcp", HostIP: "127.0.0.1", HostPort: port, TargetIP: "127.0.0.1", TargetPort: uint16(server.Addr().(*net.TCPAddr).Port)}
		if err := p.Set(owner, []Mapping{m}); err != nil {
			t.Fatal(err)
		}
	}
	answers := func(owner string, patience time.Duration) (net.Conn, bool) {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[owner]))))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte("x"))
		_, err = io.ReadFull(c, make([]byte, 1))
		return c, err == nil
	}
	const long, short = 20 * time.Second, 500 * time.Millisecond
	var served []net.Conn
	for {
		patience := long // for those that must be served
		if len(served) >= 8 {
			patience = short
		}
		c, ok := answers("flooded", patience)
		if !ok {
			break // it waits
		}
		if served = append(served, c); len(served) > 20 {
			t.Fatal("one port takes all connections")
		}
	}
	if len(served) < 8 {
		t.Errorf("one port alone has only %d of 20 connections", len(served))
	}
	if _, ok := answers("other", long); !ok {
		t.Error("the other port does not answer")
	}
	// Room that is made is used.
	for _, c := range served {
		c.Close()
	}
	if _, ok := answers("flooded", long); !ok {
		t.Error("the port does not answer after the flood")
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}
