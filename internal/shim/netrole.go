package shim

import (
	"encoding/json"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/heap"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// netRole is the process that relays published ports and keeps descriptors for
// an io that is killed. It does nothing by itself: io tells it everything.
type netRole struct {
	proxy *portproxy.Proxy

	mu   sync.Mutex // guards kept, and keeps requests whole
	kept map[string]map[string]int
	quit chan struct{}
}

func newNetRole() *netRole {
	return &netRole{proxy: portproxy.New(), kept: map[string]map[string]int{}, quit: make(chan struct{})}
}

// serve accepts io's connections until told to end.
func (n *netRole) serve(l *net.UnixListener) error {
	go func() {
		<-n.quit
		l.Close()
	}()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			select {
			case <-n.quit:
				return nil
			default:
				return err
			}
		}
		go n.serveConn(c)
	}
}

func (n *netRole) serveConn(c *net.UnixConn) {
	defer c.Close()
	if _, err := requireRoot(c); err != nil {
		return
	}
	for {
		f, err := receive(c)
		if err != nil {
			return
		}
		var r request
		if json.Unmarshal(f.json, &r) != nil {
			f.closeFDs()
			return
		}
		err = n.handle(c, &r, f)
		f.closeFDs()
		if err != nil {
			return
		}
	}
}

func (n *netRole) handle(c *net.UnixConn, r *request, f *frame) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r.Op {
	case "hello":
		return answer(c, netHello{Pid: os.Getpid(), Version: Version, Ports: n.proxy.Mappings()}, nil)
	case "hold":
		var k held
		if err := json.Unmarshal(r.Body, &k); err != nil {
			return err
		}
		n.keep(k, f)
		return nil
	case "drop":
		var k held
		if err := json.Unmarshal(r.Body, &k); err != nil {
			return err
		}
		n.drop(k)
		return nil
	case "take":
		return n.give(c)
	case "ports":
		var p portsBody
		if err := json.Unmarshal(r.Body, &p); err != nil {
			return answer(c, nil, errs.InvalidArgument("cannot read the ports: %w", err))
		}
		return answer(c, nil, n.proxy.Set(p.Owner, p.Ports))
	case "shutdown":
		n.proxy.Close()
		err := answer(c, nil, nil)
		close(n.quit)
		return err
	}
	return answer(c, nil, errs.NotImplemented("the net role does not know %q", r.Op))
}

func (n *netRole) keep(k held, f *frame) {
	n.dropNames(k.Key, nil)
	m := map[string]int{}
	for i, name := range k.Names {
		if i < len(f.fds) {
			m[name], f.fds[i] = f.fds[i], -1
		}
	}
	n.kept[k.Key] = m
	heap.Used()
}

func (n *netRole) drop(k held) { n.dropNames(k.Key, k.Names) }

func (n *netRole) dropNames(key string, names []string) {
	m := n.kept[key]
	for name, fd := range m {
		if len(names) == 0 || slices.Contains(names, name) {
			unix.Close(fd)
			delete(m, name)
		}
	}
	if len(m) == 0 {
		delete(n.kept, key)
	}
}

// give sends everything that is kept, and keeps it.
func (n *netRole) give(c *net.UnixConn) error {
	if err := answer(c, nil, nil); err != nil {
		return err
	}
	for key, m := range n.kept {
		k := held{Key: key}
		var fds []int
		for name, fd := range m {
			k.Names, fds = append(k.Names, name), append(fds, fd)
		}
		if err := send(c, k, nil, fds...); err != nil {
			return err
		}
	}
	return send(c, held{}, nil)
}

// answer replies with a value or an error.
func answer(c *net.UnixConn, v any, err error) error {
	r := reply{Error: toWire(err)}
	if err == nil && v != nil {
		raw, merr := json.Marshal(v)
		if merr != nil {
			return merr
		}
		r.Body = raw
	}
	return send(c, r, nil)
}
