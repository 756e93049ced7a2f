package rtnl

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/network/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func dial(t testing.TB) *Conn {
	t.Helper()
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func do(t testing.TB, c *Conn, fill func(b *Batch)) {
	t.Helper()
	var b Batch
	fill(&b)
	if err := c.Do(&b); err != nil {
		t.Fatal(err)
	}
}

func index(t testing.TB, c *Conn, name string) int {
	t.Helper()
	n, err := c.Index(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLinksAddressesRoutes(t *testing.T) {
	c := dial(t)
	mac := net.HardwareAddr{2, 3, 4, 5, 6, 7}
	do(t, c, func(b *Batch) { b.AddBridge(Link{Name: "br9", MAC: mac, MTU: 1400}) })
	br := index(t, c, "br9")
	do(t, c, func(b *Batch) {
		b.AddVeth(Link{Name: "v1", MTU: 1400, Master: br, Up: true}, Link{Name: "v2"})
		b.AddAddr(br, netip.MustParsePrefix("198.51.100.1/24"), true)
		b.Up(br)
		b.AddDefaultRoute(netip.MustParseAddr("198.51.100.9"))
	})
	defer do(t, c, func(b *Batch) { b.DelLink("v1"); b.DelLink("br9") })
	links, err := c.Links()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]LinkInfo{}
	for _, l := range links {
		found[l.Name] = l
	}
	if l := found["br9"]; l.Kind != "bridge" || l.MTU != 1400 || l.MAC.String() != mac.String() || !l.Up || l.Index != br {
		t.Errorf("br9: %+v", l)
	}
	if l := found["v1"]; l.Kind != "veth" || l.Master != br || !l.Up {
		t.Errorf("v1: %+v", l)
	}
	if l := found["v2"]; l.Kind != "veth" || l.Master != 0 || l.Up {
		t.Errorf("v2: %+v", l)
	}
	addrs, err := c.Addrs()
	if want := (AddrInfo{br, netip.MustParsePrefix("198.51.100.1/24")}); err != nil || !slices.Contains(addrs, want) {
		t.Errorf("addresses %v, %v", addrs, err)
	}
	routes, err := c.Routes()
	for _, want := range []string{"198.51.100.0/24", "0.0.0.0/0"} {
		if err != nil || !slices.Contains(routes, RouteInfo{br, netip.MustParsePrefix(want)}) {
			t.Errorf("routes %v, %v", routes, err)
		}
	}
	if err := c.Settle("v1"); err != nil {
		t.Error(err)
	}
}

// Of several requests the first that fails is named, and those after it are
// carried out.
func TestErrors(t *testing.T) {
	c := dial(t)
	var b Batch
	b.AddBridge(Link{Name: "br8"})
	b.AddBridge(Link{Name: "br8"})
	b.DelLink("nothing")
	b.AddBridge(Link{Name: "br7"})
	err := c.Do(&b)
	if !errors.Is(err, unix.EEXIST) || err.Error() != "cannot create bridge br8: file exists" {
		t.Errorf("got %v", err)
	}
	do(t, c, func(b *Batch) { b.DelLink("br8"); b.DelLink("br7") })
	if _, err := c.Index("br7"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Index("a name that is much too long"); err == nil {
		t.Error("a long name was accepted")
	}
	b = Batch{}
	b.AddVeth(Link{Name: "v5", Master: 4242}, Link{Name: "v6"})
	if err := c.Do(&b); err == nil {
		t.Error("a bridge that is not there was accepted")
	}
	if err := c.Do(&Batch{}); err != nil {
		t.Errorf("no request at all: %v", err)
	}
	c.Close()
	if err := c.Do(&b); err == nil {
		t.Error("a closed Conn works")
	}
}

func FuzzParse(f *testing.F) {
	var b Batch
	b.AddVeth(Link{Name: "a"}, Link{Name: "b"})
	f.Add(b.b)
	f.Add([]byte{16, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		for len(data) >= unix.NLMSG_HDRLEN {
			h, body, rest := split(data)
			parseError(h, body)
			var l LinkInfo
			for kind, value := range attrs(body) {
				l.set(kind, value)
			}
			data = rest
		}
	})
}
