package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// published lists the bindings of a port, as "IP:PORT", sorted.
func published(s *Sandbox, port string) string {
	var all []string
	for _, b := range s.Ports[network.MustParsePort(port)] {
		all = append(all, net.JoinHostPort(b.HostIP.String(), b.HostPort))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestPublish(t *testing.T) {
	h := newHost(t, Options{})
	lo, _ := ephemeral()
	c := h.run(t, "one", "8080:80", "8090-8092:82", "[::1]:8088:83/udp", "0:84", "8085:85/sctp")
	for port, want := range map[string]string{
		"80": "0.0.0.0:8080 [::]:8080", "82": "0.0.0.0:8090 [::]:8090", "83/udp": "[::1]:8088",
		"85/sctp": "0.0.0.0:8085 [::]:8085",
		"84":      fmt.Sprintf("0.0.0.0:%d [::]:%d", lo, lo),
	} {
		if got := published(c.Sandbox, port); got != want {
			t.Errorf("%s: got %s, want %s", port, got, want)
		}
	}
	if got := nft(t, "list", "map", "ip", "gtest", "ports"); !strings.Contains(got, `sctp . 8085 comment "`+short(c.id)+`" : 172.17.0.2 . 85`) {
		t.Errorf("SCTP is not sent on: %s", got)
	}
}

// FuzzHostPort reads host ports as they come from clients.
func FuzzHostPort(f *testing.F) {
	for _, s := range []string{"", "0", "80", "8000-8010", "9-8", "70000", "-1", "1-", "0-5", "80-80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w, err := newWish(network.MustParsePort("80"), network.PortBinding{HostPort: s}, true)
		if err == nil && (w.first > w.last || w.first == 0 && w.last != 0 || len(w.hosts) != 2) {
			t.Errorf("%q: %+v", s, w)
		}
	})
}

func TestPublishAll(t *testing.T) {
	h := newHost(t, Options{})
	lo, _ := ephemeral()
	taken, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", lo+1))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	req := h.request("one", "8080:443")
	req.PublishAll = true
	req.Exposed = network.PortSet{}
	for _, p := range []string{"80", "53/udp", "443", "90"} {
		req.Exposed[network.MustParsePort(p)] = struct{}{}
	}
	c := h.connect(t, req)
	for port, want := range map[string]string{
		"443": "0.0.0.0:8080 [::]:8080", "53/udp": fmt.Sprintf("0.0.0.0:%d [::]:%d", lo, lo),
		"80": fmt.Sprintf("0.0.0.0:%d [::]:%d", lo+2, lo+2), // lo+1 is the other program's
		"90": fmt.Sprintf("0.0.0.0:%d [::]:%d", lo+3, lo+3),
	} {
		if got := published(c.Sandbox, port); got != want {
			t.Errorf("%s: got %s, want %s", port, got, want)
		}
	}
	req = h.request("two")
	req.Exposed = network.PortSet{network.MustParsePort("80"): {}}
	c = h.connect(t, req)
	if b, ok := c.Ports[network.MustParsePort("80")]; !ok || b != nil {
		t.Errorf("an exposed port is shown as %v, %v", b, ok)
	}
}

func TestPortConflicts(t *testing.T) {
	h := newHost(t, Options{})
	other, err := net.Listen("tcp4", "127.0.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	h.run(t, "web", "8080:80", "127.0.0.1:9000-9001:80", "8080:80/udp")
	comm, _ := os.ReadFile("/proc/self/comm")
	self := fmt.Sprintf("process %d (%s)", os.Getpid(), strings.TrimSpace(string(comm)))
	for _, c := range []struct{ port, want string }{
		{"8080:80", `Bind for 0.0.0.0:8080 failed: port is already allocated by container "web"`},
		{"[::1]:8080:80", `Bind for [::1]:8080 failed: port is already allocated by container "web"`},
		{"8080:80/udp", `Bind for 0.0.0.0:8080 failed: port is already allocated by container "web"`},
		{"7000:80", `Bind for 0.0.0.0:7000 failed: port is already allocated by ` + self},
		{"127.0.0.1:7000:80", `Bind for 127.0.0.1:7000 failed: port is already allocated by ` + self},
		{"8080-8080:80", `Bind for 0.0.0.0:8080 failed: port is already allocated by container "web"`},
		{"203.0.113.1:8085:80", `cannot listen on 203.0.113.1:8085/tcp: cannot assign requested address`},
	} {
		_, err := h.Connect(context.Background(), h.request("two", c.port, "6000:60"))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.port, err, c.want)
		}
		if strings.Contains(c.want, "failed") && !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("%s: %v is not a conflict", c.port, err)
		}
	}
	// Nothing of the failed ones is held.
	two := h.run(t, "two", "6000:60", "127.0.0.1:9000-9001:80", "127.0.0.2:9000:80")
	if got := published(two.Sandbox, "80"); got != "127.0.0.1:9001 127.0.0.2:9000" {
		t.Errorf("got %s", got)
	}
	if two.ip != netip.MustParseAddr("172.17.0.3") {
		t.Errorf("addresses have leaked: got %s", two.ip)
	}
	_, err = h.Connect(context.Background(), h.request("three", "127.0.0.1:9000-9001:80"))
	if err == nil || err.Error() != "Bind for 127.0.0.1 failed: every port of the range 9000-9001 is already allocated" {
		t.Errorf("a full range: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	h := newHost(t, Options{})
	h.run(t, "one")
	addr := func(s string) *network.EndpointSettings {
		return &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(s)}}
	}
	for name, c := range map[string]struct {
		change func(*ConnectRequest)
		class  error
		want   string
	}{
		"network":   {func(r *ConnectRequest) { r.Mode = "nope" }, errdefs.ErrNotFound, "network nope not found"},
		"taken":     {func(r *ConnectRequest) { r.Endpoint = addr("172.17.0.2") }, errdefs.ErrConflict, "Address already in use: 172.17.0.2"},
		"gateway":   {func(r *ConnectRequest) { r.Endpoint = addr("172.17.0.1") }, errdefs.ErrConflict, "Address already in use: 172.17.0.1"},
		"elsewhere": {func(r *ConnectRequest) { r.Endpoint = addr("10.0.0.1") }, errdefs.ErrInvalidArgument, "the address 10.0.0.1 is not in the network's subnet 172.17.0.0/16"},
		"broadcast": {func(r *ConnectRequest) { r.Endpoint = addr("172.17.255.255") }, errdefs.ErrInvalidArgument, "the address 172.17.255.255 is no host's in the subnet 172.17.0.0/16"},
		"port": {func(r *ConnectRequest) {
			r.Bindings = network.PortMap{network.MustParsePort("80"): {{HostPort: "x"}}}
		}, errdefs.ErrInvalidArgument, `invalid host port "x" for container port 80/tcp`},
		"range": {func(r *ConnectRequest) {
			r.Bindings = network.PortMap{network.MustParsePort("80"): {{HostPort: "9-8"}}}
		}, errdefs.ErrInvalidArgument, `invalid host port "9-8" for container port 80/tcp`},
		"MAC": {func(r *ConnectRequest) {
			r.Endpoint = &network.EndpointSettings{MacAddress: network.HardwareAddr{1, 2, 3, 4, 5, 6}}
		}, errdefs.ErrInvalidArgument, "invalid MAC address 01:02:03:04:05:06: it is a multicast address"},
	} {
		req := h.request("two")
		c.change(req)
		if _, err := h.Connect(context.Background(), req); err == nil || err.Error() != c.want || !errors.Is(err, c.class) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if c := h.run(t, "two"); c.ip != netip.MustParseAddr("172.17.0.3") {
		t.Errorf("addresses have leaked: got %s", c.ip)
	}
}

func TestOwnAddressAndMAC(t *testing.T) {
	h := newHost(t, Options{})
	req := h.request("one")
	req.Endpoint = &network.EndpointSettings{
		IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("172.17.0.3")},
		MacAddress: network.HardwareAddr{0x02, 1, 2, 3, 4, 5},
	}
	c := h.connect(t, req)
	serve(t, c.NetNS, 80)
	wantAnswer(t, nil, "tcp", "172.17.0.3:80", "172.17.0.1")
	if got := c.Endpoints["bridge"].MacAddress.String(); got != "02:01:02:03:04:05" {
		t.Errorf("MAC %s", got)
	}
	for _, want := range []string{"172.17.0.2", "172.17.0.4"} {
		if c := h.run(t, want); c.ip.String() != want {
			t.Errorf("got %s, want %s", c.ip, want)
		}
	}
}
