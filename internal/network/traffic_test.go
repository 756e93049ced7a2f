package network

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/network/netns"
	"github.com/gantry-containers/gantry/internal/network/rtnl"
)

// The ways packets can take, each seen from the server's side: from there one
// can tell a relay, a masquerade and the plain way apart.
func TestTraffic(t *testing.T) {
	const file = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := os.Stat(file); err != nil {
		t.Run("bridged packets pass the bridge only", testTraffic)
		return
	}
	for name, value := range map[string]string{"bridged packets pass the firewall": "1", "bridged packets pass the bridge only": "0"} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
			testTraffic(t)
		})
	}
}

func testTraffic(t *testing.T) {
	out := outside(t)
	h := newHost(t, Options{})
	web := h.run(t, "web", "8080:80", "8080:80/udp", "127.0.0.1:8081:80", "192.0.2.1:8082:80")
	other := h.run(t, "other")
	gateway := h.Gateway().String()
	for _, ns := range []*os.File{web.NetNS, out} {
		serve(t, ns, 80)
	}
	serve(t, other.NetNS, 90)
	for _, proto := range []string{"tcp", "udp"} {
		t.Run(proto, func(t *testing.T) {
			for name, c := range map[string]struct {
				from         *os.File
				addr, client string
			}{
				"container to container":                    {other.NetNS, web.ip.String() + ":80", other.ip.String()},
				"host to container":                         {nil, web.ip.String() + ":80", gateway},
				"container to host's network":               {web.NetNS, "192.0.2.2:80", "192.0.2.1"},
				"outside to published port":                 {out, "192.0.2.1:8080", "192.0.2.2"},
				"loopback to published port":                {nil, "127.0.0.1:8080", gateway},
				"host's own address to published port":      {nil, "192.0.2.1:8080", "192.0.2.1"},
				"other container to published port":         {other.NetNS, "192.0.2.1:8080", gateway},
				"container to its own published port":       {web.NetNS, "192.0.2.1:8080", gateway},
				"container to published port at the bridge": {other.NetNS, gateway + ":8080", gateway},
			} {
				t.Run(name, func(t *testing.T) { wantAnswer(t, c.from, proto, c.addr, c.client) })
			}
		})
	}
	t.Run("port on one address", func(t *testing.T) {
		wantAnswer(t, out, "tcp", "192.0.2.1:8082", "192.0.2.2")
		wantAnswer(t, nil, "tcp", "127.0.0.1:8081", gateway)
		refused(t, nil, "127.0.0.1:8082")
		refused(t, out, "192.0.2.1:8081")
	})
	t.Run("IPv6 loopback", func(t *testing.T) { wantAnswer(t, nil, "tcp", "[::1]:8080", gateway) })
	t.Run("closed to the outside", func(t *testing.T) { closed(t, out, web, other) })
	h.remove(t, web)
	t.Run("after the container", func(t *testing.T) {
		refused(t, out, "192.0.2.1:8080")
		refused(t, nil, "127.0.0.1:8080")
	})
}

func refused(t *testing.T, ns *os.File, addr string) {
	t.Helper()
	if got, err := ask(ns, "tcp", addr); err == nil {
		t.Errorf("%s: got %q, want a refusal", addr, got)
	}
}

// closed: who has a route to the containers reaches nothing of them, neither
// what is not published nor, around the host's port, what is.
func closed(t *testing.T, out *os.File, web, other *ctr) {
	err := netns.Do(out, func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		var b rtnl.Batch
		b.AddDefaultRoute(netip.MustParseAddr("192.0.2.1"))
		return c.Do(&b)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{web.ip.String() + ":80", other.ip.String() + ":90"} {
		if got, err := askFor(out, "tcp", addr, 200*time.Millisecond); err == nil {
			t.Errorf("%s from outside: got %q", addr, got)
		}
	}
}

// A container gets what Docker gives it.
func TestNamespace(t *testing.T) {
	h := newHost(t, Options{MTU: 1400})
	c := h.run(t, "one")
	if c.ip != netip.MustParseAddr("172.17.0.2") {
		t.Errorf("the first address is %s", c.ip)
	}
	e := c.Endpoints["bridge"]
	if e.MacAddress.String() != "02:42:ac:11:00:02" || e.Gateway.String() != "172.17.0.1" || e.IPPrefixLen != 16 {
		t.Errorf("endpoint: %+v", e)
	}
	for name, want := range map[string]string{"lo": "127.0.0.1/8", "eth0": "172.17.0.2/16"} {
		err := netns.Do(c.NetNS, func() error {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			if i.Flags&net.FlagUp == 0 || name == "eth0" && (i.MTU != 1400 || i.HardwareAddr.String() != "02:42:ac:11:00:02") {
				t.Errorf("%+v", i)
			}
			addrs, err := i.Addrs()
			for _, a := range addrs {
				if a.String() != want && a.String() != "::1/128" {
					t.Errorf("%s has address %s", name, a)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// A container that is started again at once has the address of the last one,
// whose link something still keeps alive: packets must find the new one.
func TestAddressMoves(t *testing.T) {
	h := newHost(t, Options{})
	first := h.run(t, "one")
	serve(t, first.NetNS, 80)
	wantAnswer(t, nil, "tcp", first.ip.String()+":80", "172.17.0.1")
	for range 5 {
		c := h.run(t, "one")
		if c.ip != first.ip {
			t.Fatalf("address %s, then %s", first.ip, c.ip)
		}
		serve(t, c.NetNS, 81)
		if got, err := askFor(nil, "tcp", c.ip.String()+":81", 5*time.Second); err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// A client of a UDP port that never stops sending, as a resolver or a phone
// does, must reach the container that has the port now.
func TestUDPFlowMoves(t *testing.T) {
	out := outside(t)
	h := newHost(t, Options{})
	first := h.run(t, "one", "5353:53/udp")
	serve(t, first.NetNS, 53)
	var client net.Conn
	err := netns.Do(out, func() (err error) {
		client, err = net.Dial("udp", "192.0.2.1:5353")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	asks := func() error {
		client.SetDeadline(time.Now().Add(50 * time.Millisecond))
		client.Write([]byte("x"))
		_, err := client.Read(make([]byte, 100))
		return err
	}
	eventually(t, asks)
	if err := h.Disconnect(t.Context(), first.id); err != nil {
		t.Fatal(err)
	}
	h.run(t, "in the way") // of the old address
	second := h.run(t, "one", "5353:53/udp")
	serve(t, second.NetNS, 53)
	if second.ip == first.ip {
		t.Fatal("the address did not change")
	}
	eventually(t, asks)
}
