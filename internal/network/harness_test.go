package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/network/netns"
	"github.com/gantry-containers/gantry/internal/network/netns/netnstest"
	"github.com/gantry-containers/gantry/internal/network/rtnl"
	"github.com/gantry-containers/gantry/internal/portproxy"
	"github.com/gantry-containers/gantry/internal/state"
)

// Everything here runs in a network namespace of the test process, which plays
// the host. The "outside" is one more, on a link to it.
func TestMain(m *testing.M) { netnstest.Main(m) }

// host is an engine's manager and what it is made of.
type host struct {
	*Manager
	db    *state.DB
	proxy *portproxy.Proxy
	roots [2]string
}

func newHost(t testing.TB, o Options) *host {
	t.Helper()
	h := &host{proxy: portproxy.New(), roots: [2]string{t.TempDir(), t.TempDir()}}
	if o.Instance == "" {
		o.Instance = "gtest"
	}
	h.open(t, o)
	t.Cleanup(func() {
		if err := h.Purge(context.Background()); err != nil {
			t.Error(err)
		}
		h.Manager.Close()
		h.db.Close()
		h.proxy.Close()
		noLinks(t, o.Instance)
	})
	return h
}

func (h *host) open(t testing.TB, o Options) {
	t.Helper()
	db, err := state.Open(h.roots[0], h.roots[1])
	if err != nil {
		t.Fatal(err)
	}
	o.DB, o.Events, o.Shim = db, &state.Events{}, Local(h.proxy)
	m, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	h.Manager, h.db = m, db
}

// kill is what remains after kill -9 and a new start: another manager on the
// records of one that could finish nothing.
func (h *host) kill(t testing.TB) {
	t.Helper()
	h.db.Close()
	h.spares.drain() // its descriptors are gone with a process
	h.sweeper.stop()
	h.setup.Lock()
	if h.watcher != nil {
		h.watcher.Close()
	}
	h.setup.Unlock()
	o := h.Options
	h.open(t, o)
}

// noLinks fails when links of the instance are there and do not go away.
func noLinks(t testing.TB, instance string) {
	t.Helper()
	eventually(t, func() error {
		for _, name := range links(t) {
			if strings.HasPrefix(name, instance) {
				return fmt.Errorf("interface %s is left", name)
			}
		}
		return nil
	})
}

func links(t testing.TB) []string {
	t.Helper()
	c, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Links()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	return names
}

// eventually waits until check is content.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

// ctr is a connected container.
type ctr struct {
	*Sandbox
	id string
	ip netip.Addr
}

func id(name string) string { return fmt.Sprintf("%x%064d", name, 0)[:64] }

func (h *host) request(name string, ports ...string) *ConnectRequest {
	req := &ConnectRequest{ContainerID: id(name), Name: name, Bindings: network.PortMap{}}
	for _, p := range ports {
		// [IP:]PORT:PORT[/PROTO]
		i := strings.LastIndex(p, ":")
		from, to := p[:i], network.MustParsePort(p[i+1:])
		var b network.PortBinding
		if i = strings.LastIndex(from, ":"); i >= 0 {
			b.HostIP, from = netip.MustParseAddr(strings.Trim(from[:i], "[]")), from[i+1:]
		}
		b.HostPort = from
		req.Bindings[to] = append(req.Bindings[to], b)
	}
	return req
}

func (h *host) run(t testing.TB, name string, ports ...string) *ctr {
	t.Helper()
	return h.connect(t, h.request(name, ports...))
}

func (h *host) connect(t testing.TB, req *ConnectRequest) *ctr {
	t.Helper()
	s, err := h.Connect(context.Background(), req)
	if err != nil {
		t.Fatalf("%s: %v", req.Name, err)
	}
	c := &ctr{Sandbox: s, id: req.ContainerID}
	for _, e := range s.Endpoints {
		c.ip = e.IPAddress
	}
	if s.NetNS != nil {
		t.Cleanup(func() { s.NetNS.Close() })
	}
	return c
}

func (h *host) remove(t testing.TB, c *ctr) {
	t.Helper()
	c.NetNS.Close()
	if err := h.Disconnect(context.Background(), c.id); err != nil {
		t.Error(err)
	}
}

// serve answers every connection to the port, in the namespace, with the
// address it sees the client at. ns may be nil for the host.
func serve(t testing.TB, ns *os.File, port int) {
	t.Helper()
	var ln net.Listener
	var pc net.PacketConn
	err := within(ns, func() (err error) {
		if ln, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port)); err == nil {
			pc, err = net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close(); pc.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
		}
	}()
}

func within(ns *os.File, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return netns.Do(ns, fn)
}

// ask returns what a server says, asked from within the namespace.
func ask(ns *os.File, proto, addr string) (answer string, err error) {
	return askFor(ns, proto, addr, 3*time.Second)
}

func askFor(ns *os.File, proto, addr string, patience time.Duration) (answer string, err error) {
	err = within(ns, func() error {
		c, err := (&net.Dialer{Timeout: patience}).Dial(proto, addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if proto == "udp" {
			c.Write([]byte("who am I"))
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		answer = string(buf[:n])
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	return answer, err
}

func wantAnswer(t testing.TB, ns *os.File, proto, addr, want string) {
	t.Helper()
	if got, err := ask(ns, proto, addr); err != nil || got != want {
		t.Errorf("%s %s: got %q, %v; want %q", proto, addr, got, err, want)
	}
}

// outside is another machine: 192.0.2.2, which reaches the host at 192.0.2.1
// and knows no other way.
func outside(t testing.TB) *os.File {
	t.Helper()
	var in *rtnl.Conn
	ns, err := netns.New(func() (err error) { in, err = rtnl.Dial(); return err })
	if err != nil {
		t.Fatal(err)
	}
	out, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	var b rtnl.Batch
	b.AddVeth(rtnl.Link{Name: "out0", Up: true}, rtnl.Link{Name: "eth0", NetNS: int(ns.Fd())})
	if err := out.Do(&b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var b rtnl.Batch
		b.DelLink("out0")
		out.Do(&b)
		out.Close()
		in.Close()
		ns.Close()
	})
	setUp(t, out, "out0", "192.0.2.1/24")
	setUp(t, in, "lo", "")
	setUp(t, in, "eth0", "192.0.2.2/24")
	return ns
}

func setUp(t testing.TB, c *rtnl.Conn, name, addr string) {
	t.Helper()
	index, err := c.Index(name)
	if err != nil {
		t.Fatal(err)
	}
	var b rtnl.Batch
	b.Up(index)
	if addr != "" {
		b.AddAddr(index, netip.MustParsePrefix(addr), false)
	}
	if err := c.Do(&b); err != nil {
		t.Fatal(err)
	}
}

// nft runs the command and returns its output with even white space.
func nft(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// sleeper starts a process in the namespace of the container, as the shim does.
func sleeper(t testing.TB, c *ctr) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := netns.Do(c.NetNS, cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGKILL)
		cmd.Wait()
	})
	return cmd
}
