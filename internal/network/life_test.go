package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/filter"
	"github.com/gantry-containers/gantry/internal/network/netns"
	"github.com/gantry-containers/gantry/internal/network/rtnl"
)

func live(list ...*ctr) map[string]struct{} {
	all := map[string]struct{}{}
	for _, c := range list {
		all[c.id] = struct{}{}
	}
	return all
}

// After kill -9 of the daemon, what runs is reachable throughout, and what
// ended meanwhile is released: also a link that came into being just before.
func TestKilledDaemon(t *testing.T) {
	out := outside(t)
	h := newHost(t, Options{Spare: 2})
	kept := h.run(t, "kept", "8080:80")
	gone := h.run(t, "gone", "8081:80")
	serve(t, kept.NetNS, 80)
	var b rtnl.Batch
	b.AddVeth(rtnl.Link{Name: "gtest-abc"}, rtnl.Link{Name: "gtest-abd"})
	if err := h.link.Do(&b); err != nil {
		t.Fatal(err)
	}
	before := kept.Sandbox
	for range 3 {
		h.kill(t)
		wantAnswer(t, out, "tcp", "192.0.2.1:8080", "192.0.2.2")
		if err := h.Restore(context.Background(), live(kept)); err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, out, "tcp", "192.0.2.1:8080", "192.0.2.2")
		wantAnswer(t, nil, "tcp", "127.0.0.1:8080", h.Gateway().String())
		s, ok := h.Sandbox(kept.id)
		if !ok || s.SandboxID != before.SandboxID || fmt.Sprint(s.Ports) != fmt.Sprint(before.Ports) ||
			fmt.Sprint(s.Endpoints["bridge"]) != fmt.Sprint(before.Endpoints["bridge"]) {
			t.Errorf("remembered %+v, was %+v", s, before)
		}
	}
	refused(t, nil, "127.0.0.1:8081")
	if _, ok := h.Sandbox(gone.id); ok {
		t.Error("the ended container is still connected")
	}
	if got := len(slices.DeleteFunc(links(t), func(s string) bool { return !strings.HasPrefix(s, "gtest-") })); got != 1 {
		t.Errorf("%d links are there, want that of one container: %v", got, links(t))
	}
	if c := h.run(t, "next", "8081:80"); c.ip != gone.ip {
		t.Errorf("the address %s was not released, the next is %s", gone.ip, c.ip)
	}
}

// A firewall reload of somebody else empties all tables.
func TestFlushedRuleset(t *testing.T) {
	out := outside(t)
	h := newHost(t, Options{})
	one := h.run(t, "one", "8080:80")
	serve(t, one.NetNS, 80)
	nft(t, "flush", "ruleset")
	eventually(t, func() error { // by itself
		if got, err := askFor(out, "tcp", "192.0.2.1:8080", 100*time.Millisecond); err != nil || got != "192.0.2.2" {
			return fmt.Errorf("got %q, %v", got, err)
		}
		return nil
	})
	h.watcher.Close()
	nft(t, "flush", "ruleset")
	if err := h.Restore(context.Background(), live(one)); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, out, "tcp", "192.0.2.1:8080", "192.0.2.2")
	nft(t, "flush", "ruleset")
	two := h.run(t, "two", "8081:80")
	wantAnswer(t, out, "tcp", "192.0.2.1:8080", "192.0.2.2")
	nft(t, "flush", "ruleset")
	h.remove(t, two)
	wantAnswer(t, out, "tcp", "192.0.2.1:8080", "192.0.2.2")
}

// Somebody removed the bridge: new containers must work nevertheless.
func TestLostBridge(t *testing.T) {
	h := newHost(t, Options{Spare: 1})
	h.remove(t, h.run(t, "one"))
	eventually(t, func() error {
		if len(h.spares.names()) == 0 {
			return fmt.Errorf("no spare was made")
		}
		return nil
	})
	if err := h.delLink("gtest0"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"two", "three"} {
		c := h.run(t, name)
		serve(t, c.NetNS, 80)
		wantAnswer(t, nil, "tcp", c.ip.String()+":80", "172.17.0.1")
	}
}

// Two engines on one machine: other subnets, and no effect on each other.
func TestTwoInstances(t *testing.T) {
	a, b := newHost(t, Options{Instance: "gaa"}), newHost(t, Options{Instance: "gab"})
	one := a.run(t, "one", "8080:80") // b has chosen the same subnet, but has no bridge yet
	if a.Gateway() != netip.MustParseAddr("172.17.0.1") {
		t.Errorf("gateway %s", a.Gateway())
	}
	serve(t, one.NetNS, 80)
	two := b.run(t, "one", "8081:80")
	serve(t, two.NetNS, 80)
	if a.Gateway() == b.Gateway() {
		t.Fatalf("both have the gateway %s", a.Gateway())
	}
	gone := b.run(t, "gone", "8082:80")
	b.kill(t)
	if err := b.Restore(context.Background(), live(two)); err != nil {
		t.Fatal(err)
	}
	_ = gone
	wantAnswer(t, nil, "tcp", "127.0.0.1:8080", a.Gateway().String())
	if got, err := askFor(two.NetNS, "tcp", one.ip.String()+":80", 100*time.Millisecond); err == nil {
		t.Errorf("a container of one engine reaches one of the other: %q", got)
	}
	// By the published port it may.
	if got, err := ask(two.NetNS, "tcp", a.Gateway().String()+":8080"); err != nil {
		t.Errorf("published port of the other engine: %q, %v", got, err)
	}
	_, err := b.Connect(context.Background(), b.request("three", "8080:80"))
	if err == nil || !strings.Contains(err.Error(), "port is already allocated by process") {
		t.Errorf("port of the other engine: %v", err)
	}
	if err := b.Purge(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, nil, "tcp", "127.0.0.1:8080", a.Gateway().String())
}

func TestNothingIsLeft(t *testing.T) {
	h := newHost(t, Options{})
	h.remove(t, h.run(t, "warm", "8080:80"))
	noPorts := func() error {
		for _, name := range links(t) {
			if strings.HasPrefix(name, "gtest-") {
				return fmt.Errorf("interface %s is left", name)
			}
		}
		return nil
	}
	eventually(t, noPorts)
	fds, names, rules := files(), links(t), nft(t, "list", "ruleset")
	for i := range 200 {
		c := h.run(t, fmt.Sprint("c", i), "8080:80", "8080:80/udp")
		h.remove(t, c)
		if c.ip != netip.MustParseAddr("172.17.0.2") {
			t.Fatalf("address %s after %d containers", c.ip, i)
		}
	}
	eventually(t, noPorts)
	if got := links(t); !slices.Equal(got, names) {
		t.Errorf("interfaces %v, were %v", got, names)
	}
	if got := nft(t, "list", "ruleset"); got != rules {
		t.Errorf("ruleset %s, was %s", got, rules)
	}
	if got := files(); got > fds {
		t.Errorf("%d open files, were %d", got, fds)
	}
	if all, err := h.ends.All(); len(all) > 0 || err != nil {
		t.Errorf("records are left: %v, %v", all, err)
	}
}

func files() int {
	d, _ := os.ReadDir("/proc/self/fd")
	return len(d)
}

func TestConcurrentConnects(t *testing.T) {
	h := newHost(t, Options{Spare: 3})
	var wg sync.WaitGroup
	all := make([]*ctr, 40)
	for i := range all {
		wg.Go(func() {
			for range 2 {
				req := h.request(fmt.Sprint("c", i), "0:80")
				s, err := h.Connect(context.Background(), req)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { s.NetNS.Close() })
				c := &ctr{s, req.ContainerID, s.Endpoints["bridge"].IPAddress}
				if i%2 == 0 {
					h.remove(t, c)
				} else {
					all[i] = c
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, c := range all {
		if c == nil {
			continue
		}
		serve(t, c.NetNS, 80)
		for _, key := range []string{c.ip.String(), published(c.Sandbox, "80")} {
			if seen[key] {
				t.Errorf("%s was given twice", key)
			}
			seen[key] = true
		}
		wantAnswer(t, nil, "tcp", c.ip.String()+":80", "172.17.0.1")
	}
}

// Something keeps the namespace after the container is gone: it must be off
// the network nevertheless, for the address is another's soon.
func TestKeptNamespaceIsCutOff(t *testing.T) {
	h := newHost(t, Options{})
	c := h.run(t, "one")
	sleeper(t, c)
	if err := h.Disconnect(context.Background(), c.id); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		return netns.Do(c.NetNS, func() error {
			in, err := rtnl.Dial()
			if err != nil {
				return err
			}
			defer in.Close()
			if _, err := in.Index("eth0"); err == nil {
				return fmt.Errorf("eth0 is still there")
			}
			return nil
		})
	})
}

func TestModesWithoutBridge(t *testing.T) {
	h := newHost(t, Options{})
	req := h.request("none", "8080:80")
	req.Mode = "none"
	c := h.connect(t, req)
	serve(t, c.NetNS, 80)
	wantAnswer(t, c.NetNS, "tcp", "127.0.0.1:80", "127.0.0.1")
	if names := links(t); slices.Contains(names, "gtest0") {
		t.Error("a bridge was made that nobody asked for")
	}
	if len(c.Ports) != 0 || c.Endpoints["none"].IPAddress.IsValid() {
		t.Errorf("%+v", c.Sandbox)
	}
	req = h.request("host")
	req.Mode = "host"
	s, err := h.Connect(context.Background(), req)
	if err != nil || s.NetNS != nil || s.Endpoints["host"] == nil {
		t.Errorf("%+v, %v", s, err)
	}
	for _, name := range []string{"none", "host"} {
		n, err := h.Inspect(context.Background(), name)
		if err != nil || n.Containers[id(name)].Name != name {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
		if err := h.Disconnect(context.Background(), id(name)); err != nil {
			t.Error(err)
		}
	}
}

func TestListAndInspect(t *testing.T) {
	ctx := context.Background()
	h := newHost(t, Options{})
	c := h.run(t, "web")
	if err := h.Rename(c.id, "renamed"); err != nil {
		t.Fatal(err)
	}
	list, err := h.List(ctx, nil)
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	h.kill(t)
	if err := h.Restore(ctx, live(c)); err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		if len(n.ID) != 64 {
			t.Errorf("%s: ID %s", n.Name, n.ID)
		}
		for _, ref := range []string{n.ID, n.Name, n.ID[:8]} {
			if got, err := h.Inspect(ctx, ref); err != nil || got.ID != n.ID {
				t.Errorf("%s: %v, %v", ref, got, err)
			}
		}
	}
	n, _ := h.Inspect(ctx, "bridge")
	e := n.Containers[c.id]
	if e.Name != "renamed" || e.IPv4Address.String() != "172.17.0.2/16" || e.MacAddress.String() != "02:42:ac:11:00:02" || e.EndpointID != c.Endpoints["bridge"].EndpointID {
		t.Errorf("%+v", e)
	}
	if n.IPAM.Config[0].Subnet.String() != "172.17.0.0/16" || n.IPAM.Config[0].Gateway.String() != "172.17.0.1" || n.Options[optName] != "gtest0" {
		t.Errorf("%+v", n)
	}
	for f, want := range map[string]string{
		`{"driver":["bridge"]}`: "bridge", `{"name":["o"]}`: "host none", `{"type":["custom"]}`: "", `{"scope":["local"]}`: "bridge host none",
		`{"id":["` + n.ID[:20] + `"]}`: "bridge", `{"dangling":["true"]}`: "", `{"label":["x"]}`: "",
	} {
		args, err := filter.Parse(f)
		if err != nil {
			t.Fatal(err)
		}
		list, err := h.List(ctx, args)
		var names []string
		for _, n := range list {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, " "); got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", f, got, err, want)
		}
	}
	if _, err := h.List(ctx, filter.Args{"x": {"y"}}); err == nil || err.Error() != "invalid filter 'x'" {
		t.Error(err)
	}
}

// Engines that make their bridges at the same moment have different subnets.
func TestSubnetsAtOnce(t *testing.T) {
	outside(t)
	for range 4 {
		var hosts []*host
		for _, name := range []string{"gsa", "gsb", "gsc"} {
			hosts = append(hosts, newHost(t, Options{Instance: name}))
		}
		got := make([]*ctr, len(hosts))
		var all sync.WaitGroup
		for i, h := range hosts {
			all.Go(func() { got[i] = h.run(t, "one") })
		}
		all.Wait()
		if a, b, c := got[0].ip, got[1].ip, got[2].ip; a == b || b == c || c == a {
			t.Errorf("at once they got %s, %s and %s", a, b, c)
		}
		for i, h := range hosts {
			h.remove(t, got[i])
			if err := h.Purge(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSubnets(t *testing.T) {
	out := outside(t)
	_ = out
	c, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	index, err := c.Index("out0")
	if err != nil {
		t.Fatal(err)
	}
	var b rtnl.Batch
	b.AddAddr(index, netip.MustParsePrefix("172.17.4.1/24"), false)
	b.AddAddr(index, netip.MustParsePrefix("172.18.0.1/30"), false)
	if err := c.Do(&b); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, Options{Instance: "gsub"})
	if got := h.run(t, "one").ip.String(); got != "172.19.0.2" {
		t.Errorf("got %s beside 172.17.4.0/24 and 172.18.0.0/30", got)
	}
	// All records are lost, and the bridge is not: its subnet is used again.
	h.kill(t)
	h.roots = [2]string{t.TempDir(), t.TempDir()}
	h.kill(t)
	if got := h.run(t, "again").ip.String(); got != "172.19.0.2" {
		t.Errorf("got %s, the second time", got)
	}
	fixed := newHost(t, Options{Instance: "gfix", BridgeAddr: netip.MustParsePrefix("10.9.8.5/29")})
	for _, want := range []string{"10.9.8.1", "10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.6"} {
		if got := fixed.run(t, want).ip.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := fixed.Connect(context.Background(), fixed.request("more")); err == nil || !strings.Contains(err.Error(), "no available IPv4 addresses") {
		t.Errorf("a full subnet: %v", err)
	}
	// Another configuration replaces the bridge, once nobody is on it.
	fixed.kill(t)
	if err := fixed.Restore(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	fixed.Options.BridgeAddr = netip.MustParsePrefix("10.7.0.0/24")
	fixed.kill(t)
	moved := fixed.run(t, "moved")
	serve(t, moved.NetNS, 80)
	wantAnswer(t, nil, "tcp", "10.7.0.2:80", "10.7.0.1")
}

func TestWarnings(t *testing.T) {
	h := newHost(t, Options{})
	h.run(t, "one")
	nft(t, "add table ip filter")
	nft(t, "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	defer nft(t, "delete table ip filter")
	if err := os.WriteFile(forwardFile, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(forwardFile, []byte("1"), 0)
	if got := strings.Join(h.Warnings(), "\n"); !strings.Contains(got, "IPv4 forwarding is disabled") {
		t.Errorf("got %q", got)
	}
	if got := strings.Join(h.Warnings(), "\n"); !strings.Contains(got, `the nftables chain "filter FORWARD" drops what is forwarded`) {
		t.Errorf("got %q", got)
	}
}
