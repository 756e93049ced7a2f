package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/network/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var bridge = Bridge{Name: "gtest0", Subnet: netip.MustParsePrefix("172.30.0.0/16"), ICC: true, Masquerade: true}

// nft prints a part of the ruleset, with white space made even.
func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func newTable(t testing.TB, name string) *Table {
	table := New(name, 0)
	t.Cleanup(func() {
		if err := table.Delete(); err != nil {
			t.Error(err)
		}
		table.Close()
	})
	return table
}

func TestTableAsNftReadsIt(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	table := newTable(t, "gtest")
	ports := []Port{
		{"tcp", addr("0.0.0.0"), 8080, addrPort("172.30.0.2:80"), "web"},
		{"udp", addr("192.0.2.7"), 53, addrPort("172.30.0.3:5353"), "dns"},
	}
	if err := table.Replace([]Bridge{bridge}, ports); err != nil {
		t.Fatal(err)
	}
	got := nft(t, "list", "table", "ip", "gtest")
	for _, want := range []string{
		`set bridges { type ifname elements = { "gtest0" } }`,
		`elements = { "gtest0" . "gtest0" }`,
		`elements = { 172.30.0.0/16 }`,
		`elements = { tcp . 8080 comment "web" : 172.30.0.2 . 80 }`,
		`elements = { 192.0.2.7 . udp . 53 comment "dns" : 172.30.0.3 . 5353 }`,
		`chain publish { dnat to ip daddr . meta l4proto . th dport map @ports_at dnat to meta l4proto . th dport map @ports }`,
		`type nat hook prerouting priority dstnat; policy accept; iifname @bridges return fib daddr type local jump publish }`,
		`type nat hook output priority -100; policy accept; ip daddr 127.0.0.0/8 return fib daddr type local jump publish }`,
		`ip saddr @subnets oifname != @bridges masquerade }`,
		`oifname @bridges jump inward }`,
		`chain inward { ct state established,related accept iifname . oifname @inside accept ct status dnat accept drop }`,
	} {
		if !strings.Contains(strings.ReplaceAll(got, "dnat ip to", "dnat to"), want) {
			t.Errorf("missing: %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	if err := table.Remove(ports); err != nil {
		t.Fatal(err)
	}
	if got := nft(t, "list", "map", "ip", "gtest", "ports"); strings.Contains(got, "elements") {
		t.Errorf("elements are left: %s", got)
	}
}

// Somebody else's "nft flush ruleset" must be noticed, and be repairable, and
// a table of another instance must not be touched.
func TestFlushedTable(t *testing.T) {
	table, other := newTable(t, "gtest"), newTable(t, "gother")
	port := []Port{{"tcp", addr("0.0.0.0"), 8080, addrPort("172.30.0.2:80"), "web"}}
	for _, tab := range []*Table{table, other} {
		if err := tab.Replace([]Bridge{bridge}, port); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := table.Add(port); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Add to no table: %v", err)
	}
	if err := table.Remove(port); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Remove from no table: %v", err)
	}
	for range 2 {
		if err := table.Replace([]Bridge{bridge}, port); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := []Port{port[0]}
	elsewhere[0].Target = addrPort("172.30.0.9:80")
	if err := table.Add(elsewhere); !errors.Is(err, unix.EEXIST) {
		t.Errorf("Add of a taken port: %v", err)
	}
	if err := other.Remove(port); err != nil {
		t.Errorf("the other instance: %v", err)
	}
}

func TestDroppers(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	table := newTable(t, "gtest")
	if err := table.Replace([]Bridge{bridge}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := table.Droppers(); len(got) != 0 || err != nil {
		t.Errorf("got %v, %v; want none", got, err)
	}
	nft(t, "add", "table", "inet", "strict")
	defer nft(t, "delete", "table", "inet", "strict")
	nft(t, "add", "chain", "inet", "strict", "fw", "{ type filter hook forward priority 0; policy drop; }")
	if got, err := table.Droppers(); fmt.Sprint(got) != "[strict fw]" || err != nil {
		t.Errorf("got %v, %v; want [strict fw]", got, err)
	}
}

func BenchmarkAddRemove(b *testing.B) {
	table := newTable(b, "gbench")
	if err := table.Replace([]Bridge{bridge}, nil); err != nil {
		b.Fatal(err)
	}
	port := []Port{{"tcp", addr("0.0.0.0"), 8080, addrPort("172.30.0.2:80"), "web"}}
	for b.Loop() {
		if err := table.Add(port); err != nil {
			b.Fatal(err)
		}
		if err := table.Remove(port); err != nil {
			b.Fatal(err)
		}
	}
}
