package resolv

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	b, err := Hosts(&Config{
		Hostname: "box", Domainname: "example.test", Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2")},
		ExtraHosts: []string{"db:10.0.0.5", "six=[::2]", "up:host-gateway"}, HostGateway: []netip.Addr{netip.MustParseAddr("172.17.0.1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"127.0.0.1\tlocalhost\n", "10.0.0.5\tdb\n", "::2\tsix\n", "172.17.0.1\tup\n", "172.17.0.2\tbox.example.test box\n"} {
		if !strings.Contains(string(b), line) {
			t.Errorf("no %q in\n%s", line, b)
		}
	}
	for _, bad := range []string{"", "db", "db:", ":1.2.3.4", "db:nonsense", "a b:1.2.3.4", "x\n:1.2.3.4"} {
		if _, err := Hosts(&Config{ExtraHosts: []string{bad}}); err == nil {
			t.Errorf("%q was allowed", bad)
		}
	}
	if _, err := Hosts(&Config{ExtraHosts: []string{"up:host-gateway"}}); err == nil {
		t.Error("host-gateway without a gateway")
	}
}

func TestHostsOfTheHost(t *testing.T) {
	want, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Skip("this host has no /etc/hosts: ", err)
	}
	if b, err := Hosts(&Config{Hostname: "box", HostNetwork: true}); err != nil || string(b) != string(want) {
		t.Errorf("%q %v", b, err)
	}
	b, err := Hosts(&Config{Hostname: "box", HostNetwork: true, ExtraHosts: []string{"db:10.0.0.5"}})
	if err != nil || !strings.HasSuffix(string(b), "\n10.0.0.5\tdb\n") || string(b) == string(want)+"10.0.0.5\tdb\n" {
		t.Errorf("%q %v", b, err)
	}
}

func TestResolvConf(t *testing.T) {
	s := parse([]byte("# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver nonsense\nsearch a b\noptions ndots:2\noptions rotate\n"), false)
	if strings.Join(s.servers, " ") != "10.0.0.1" || strings.Join(s.search, " ") != "a b" || strings.Join(s.options, " ") != "ndots:2 rotate" {
		t.Errorf("%+v", s)
	}
	if !onlyStub([]byte("nameserver 127.0.0.53\n")) || onlyStub([]byte("nameserver 127.0.0.53\nnameserver 1.1.1.1\n")) {
		t.Error("systemd's stub is not told from other name servers")
	}
	b, err := ResolvConf(&Config{DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}, Search: []string{"."}, Options: []string{"ndots:1"}})
	if err != nil || string(b) != "nameserver 9.9.9.9\noptions ndots:1\n" {
		t.Errorf("%q %v", b, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch x\noptions y\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, server := range parse([]byte(s), false).servers {
			if addr, err := netip.ParseAddr(server); err != nil || addr.IsLoopback() {
				t.Errorf("%q passed as a name server", server)
			}
		}
	})
}

// A container without an IPv6 address cannot ask a name server at one.
func TestUnreachableServers(t *testing.T) {
	for _, test := range []struct {
		own  string
		want int
	}{{"172.17.0.2", 1}, {"fd00::2", 2}} {
		s := &settings{servers: []string{"192.0.2.53", "2001:db8::53"}}
		s.dropUnreachable([]netip.Addr{netip.MustParseAddr(test.own)})
		if len(s.servers) != test.want || s.servers[0] != "192.0.2.53" {
			t.Errorf("%s: %v", test.own, s.servers)
		}
	}
}
