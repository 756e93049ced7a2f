package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// Version names the protocol and the form of the kept state. An io upgrades only
// to a binary that says (gantry-shim version) that it understands it.
const Version = "1"

// serve accepts the daemon's connections.
func (h *Holder) serve(l *net.UnixListener) error {
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors, most likely. Nothing is lost by waiting.
			h.log.Error("cannot accept a connection", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go h.serveConn(c)
	}
}

func (h *Holder) serveConn(c *net.UnixConn) {
	defer c.Close()
	from, err := requireRoot(c)
	if err != nil {
		answer(c, nil, err)
		return
	}
	for {
		f, err := receive(c)
		if err != nil {
			return
		}
		f.from = from
		var r request
		if err := json.Unmarshal(f.json, &r); err != nil {
			f.closeFDs()
			return
		}
		switch r.Op {
		case "events":
			f.closeFDs()
			h.subscribe(c)
			return
		case "upgrade":
			f.closeFDs()
			err = h.serveUpgrade(c, &r)
		case "shutdown":
			f.closeFDs()
			err = h.serveShutdown(c)
		default:
			err = h.serveRequest(c, &r, f)
		}
		if err != nil {
			return
		}
	}
}

// serveRequest executes a request and answers it; an upgrade comes before or
// after both.
func (h *Holder) serveRequest(c *net.UnixConn, r *request, f *frame) error {
	h.gate.enter()
	defer h.gate.leave()
	defer f.closeFDs()
	v, err := h.handle(r, f)
	return answer(c, v, err)
}

// handle executes a request. A fault in one must not end the parent of all.
func (h *Holder) handle(r *request, f *frame) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("a request failed badly", "request", r.Op, "panic", p, "stack", string(debug.Stack()))
			v, err = nil, errs.System("the shim failed to %s: %v", r.Op, p)
		}
	}()
	// What was begun is finished, whether or not the daemon is still there.
	ctx := context.Background()
	switch r.Op {
	case "start":
		return decode(r, func(b *StartRequest) (any, error) {
			end := len(f.blob) - b.SeccompSize
			if b.SeccompSize < 0 || end < 0 {
				return nil, errs.InvalidArgument("a seccomp profile cannot have %d of %d bytes", b.SeccompSize, len(f.blob))
			}
			b.Spec, b.Seccomp = f.blob[:end:end], f.blob[end:]
			conns := make([]*os.File, len(b.Attach))
			for i := range conns {
				conns[i] = f.takeFD(i, "client")
			}
			netns := f.takeFD(len(conns), "netns")
			if netns != nil {
				defer netns.Close()
			}
			return h.start(ctx, b, netns, conns)
		})
	case "exec":
		return decode(r, func(b *ExecRequest) (any, error) {
			b.Process = f.blob
			return h.exec(ctx, b, f.takeFD(0, "client"))
		})
	case "attach":
		return decode(r, func(b *AttachRequest) (any, error) {
			return nil, h.attach(b, f.takeFD(0, "client"), f.from)
		})
	case "signal":
		return decode(r, func(b *signalBody) (any, error) {
			return nil, h.with(b.target, func(t *task) error { return t.signal(b.Signal, b.All) })
		})
	case "resize":
		return decode(r, func(b *resizeBody) (any, error) {
			return nil, h.with(b.target, func(t *task) error { return t.resize(b.Height, b.Width) })
		})
	case "closestdin":
		return decode(r, func(b *target) (any, error) {
			return nil, h.with(*b, func(t *task) error { t.closeStdin(); return nil })
		})
	case "list":
		return h.list(), nil
	case "forget":
		return decode(r, func(b *target) (any, error) { return nil, h.forget(key{b.ID, b.ExecID}) })
	case "drop-pending":
		h.dropPending(func(*client) bool { return true })
		return nil, nil
	case "pause":
		return h.withCgroup(r, func(_ *updateBody, cg *cgroup.Cgroup) error { return cg.Freeze() })
	case "resume":
		return h.withCgroup(r, func(_ *updateBody, cg *cgroup.Cgroup) error { return cg.Thaw() })
	case "update":
		return h.withCgroup(r, func(b *updateBody, cg *cgroup.Cgroup) error { return cg.Set(b.Resources) })
	case "ports":
		return decode(r, func(b *portsBody) (any, error) { return nil, h.store.setPorts(b.Owner, b.Ports) })
	case "info":
		return h.info(), nil
	}
	return nil, errs.NotImplemented("the shim does not know %q", r.Op)
}

func decode[T any](r *request, f func(*T) (any, error)) (any, error) {
	var body T
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return nil, errs.InvalidArgument("cannot read the request to %s: %w", r.Op, err)
	}
	return f(&body)
}

func (h *Holder) with(b target, f func(*task) error) error {
	t, err := h.running(key{b.ID, b.ExecID})
	if err != nil {
		return err
	}
	return f(t)
}

func (h *Holder) withCgroup(r *request, f func(*updateBody, *cgroup.Cgroup) error) (any, error) {
	return decode(r, func(b *updateBody) (any, error) {
		return nil, h.with(b.target, func(t *task) error {
			cg := t.cgroup()
			if cg == nil {
				return errs.NotImplemented("%s has no cgroup", t.key)
			}
			return f(b, cg)
		})
	})
}

func (h *Holder) info() Info {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return Info{Pid: os.Getpid(), NetPid: h.store.pid, Version: Version, Binary: ocirt.Program()}
}

func (h *Holder) serveShutdown(c *net.UnixConn) error {
	err := h.end()
	if e := answer(c, nil, err); err != nil {
		return e
	}
	os.Exit(0)
	return nil
}

// end gives everything up, if there is nothing left to hold.
func (h *Holder) end() error {
	if err := h.stop(); err != nil {
		return err
	}
	h.log.Info("the shim ends", "pid", os.Getpid())
	h.spares.close()
	h.store.shutdown()
	os.Remove(SocketPath(h.execRoot))
	os.Remove(netSocket(h.execRoot))
	removeCgroup(h.execRoot)
	return nil
}

func isUnavailable(err error) bool { return errors.Is(err, errdefs.ErrUnavailable) }

func (h *Holder) terminated() {
	// The machine is going down, or somebody means well. Containers come first.
	if h.end() == nil {
		os.Exit(0)
	}
	h.log.Warn("not ending on SIGTERM: containers are running")
}

// listen makes the socket. The lock, which is held by now, says that nobody
// else uses what may have been left there.
func listen(path string) (*net.UnixListener, error) {
	if err := ignoreMissing(os.Remove(path)); err != nil {
		return nil, err
	}
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}
