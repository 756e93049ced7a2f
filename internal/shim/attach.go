package shim

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// attach registers a client of a process that runs or will. by is the process of
// the daemon that asks for it.
func (h *Holder) attach(r *AttachRequest, conn *os.File, by int) error {
	k := key{r.ID, r.ExecID}
	if err := checkID(k.id); err != nil {
		return err
	}
	c, err := newClient(r, conn)
	if err != nil {
		return err
	}
	c.by = by
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tasks[k]
	switch {
	case t != nil && t.take(c):
		go t.serve(c)
	case !r.Run.IsZero():
		c.finish() // it came too late
	default:
		c.watched = make(chan struct{})
		h.pending[k] = append(h.pending[k], c)
		go h.awaitPending(k, c)
	}
	return nil
}

// take makes c a client of this process, if it belongs to it: not of one that is
// being started, which collects its clients itself, and not of one that has
// ended, whose successor it may be waiting for.
func (t *task) take(c *client) bool {
	// The end of the process lets its clients go after it has set Running under
	// the same lock: who is taken here is not forgotten there.
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.rec.Running || !c.r.Run.IsZero() && !c.r.Run.Equal(t.rec.StartedAt) {
		return false
	}
	t.clients = append(t.clients, c)
	return true
}

// awaitPending drops a client that goes away before its process came.
func (h *Holder) awaitPending(k key, c *client) {
	defer close(c.watched)
	gone := c.awaitHangup(func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return !slices.Contains(h.pending[k], c)
	})
	if !gone {
		return
	}
	h.mu.Lock()
	i := slices.Index(h.pending[k], c)
	if i >= 0 {
		h.pending[k] = slices.Delete(h.pending[k], i, i+1)
		if len(h.pending[k]) == 0 {
			delete(h.pending, k)
		}
	}
	h.mu.Unlock()
	if i >= 0 {
		c.drop()
	}
}

// awaitHangup waits until the peer is gone, or until stop, which is asked when
// anything happens on the socket and when its wait is interrupted.
func (c *client) awaitHangup(stop func() bool) (gone bool) {
	rc, err := c.conn.SyscallConn()
	if err != nil {
		return true
	}
	err = rc.Read(func(fd uintptr) bool {
		if stop() {
			return true
		}
		gone = hungUp(int(fd))
		return gone
	})
	return gone || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !stop()
}

// endPending ends the watch over a client whose process has come. The watch
// holds the socket's reading side, and what arrived meanwhile wakes nobody
// again: without its end, input sent before the start would lie there.
func (c *client) endPending() {
	if c.watched == nil {
		return
	}
	c.conn.SetReadDeadline(past)
	<-c.watched
	c.conn.SetReadDeadline(time.Time{})
	c.watched = nil
}

// bring makes a client one that comes with the process. The socket is still the
// caller's.
func (t *task) bring(r *AttachRequest, conn *os.File) error {
	c, err := newClient(r, conn)
	if err == nil {
		t.first = append(t.first, c)
	}
	return err
}

// connect gives a client the output from the first byte on, and the process its
// input.
func (t *task) connect(c *client) {
	t.mu.Lock()
	t.clients = append(t.clients, c)
	t.mu.Unlock()
	go t.serve(c)
}

// serve reads what a client types and notices when it goes.
func (t *task) serve(c *client) {
	c.endPending()
	kind := EventEnd
	switch {
	case !c.r.Stdin || t.in == nil || c.inputDone:
	case t.input(c):
		kind = EventDetach
		t.detach(c, kind)
		return
	case !t.rec.StdinOnce || t.rec.Terminal:
		// As in Docker: the end of the input is the end of the attachment.
		t.detach(c, kind)
		return
	default:
		c.inputDone = true
		t.closeStdin()
	}
	if c.awaitHangup(c.isOver) {
		t.detach(c, kind)
	}
}

func (c *client) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// input copies a client's input until its end or the detach keys.
func (t *task) input(c *client) (detached bool) {
	rc, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	for {
		more := false
		if len(c.unfed)+len(c.r.Unread) > 0 {
			t.h.guarded(func() { more, detached = t.leftover(c) })
			if !more {
				return detached
			}
			continue
		}
		err := rc.Read(func(fd uintptr) bool {
			t.h.gate.enter()
			defer t.h.gate.leave()
			buf := chunks.Get().(*[]byte)
			defer chunks.Put(buf)
			n, err := readFD(int(fd), *buf)
			if err == unix.EAGAIN {
				return false
			}
			if n > 0 {
				more, detached = t.typed(c, (*buf)[:n])
			}
			return true
		})
		if err != nil || !more {
			return detached
		}
	}
}

// leftover hands over input that was read before: by an upgraded io, or by the
// daemon together with the request.
func (t *task) leftover(c *client) (more, detached bool) {
	if p := c.unfed; len(p) > 0 {
		c.unfed = nil
		if t.feed(c, p) != nil {
			return false, false
		}
		if len(c.unfed) > 0 {
			return true, false
		}
	}
	p := c.r.Unread
	c.r.Unread = nil
	return t.typed(c, p)
}

// typed hands input to the process. more is false when the process does not
// want any, or when the client has detached.
func (t *task) typed(c *client, p []byte) (more, detached bool) {
	if t.rec.Terminal {
		p, detached = c.keys.filter(p)
	}
	err := t.feed(c, p)
	return err == nil && !detached, detached
}

// feed writes to the input of the process and waits while it does not read. What
// an upgrade interrupts stays in c.unfed.
func (t *task) feed(c *client, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	t.inMu.Lock()
	defer t.inMu.Unlock()
	rc, err := t.in.SyscallConn()
	if err != nil {
		return err
	}
	var fail error
	err = rc.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			n, err := unix.Write(int(fd), p)
			switch err {
			case nil:
				p = p[n:]
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				fail = err
				return true
			}
		}
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) && upgrading.Load() {
		c.unfed = slices.Clone(p)
		return nil
	}
	return errors.Join(err, fail)
}

// detach ends a client's stream while the process goes on.
func (t *task) detach(c *client, kind string) {
	t.mu.Lock()
	i := slices.Index(t.clients, c)
	if i >= 0 {
		t.clients = slices.Delete(t.clients, i, i+1)
	}
	t.mu.Unlock()
	if i >= 0 {
		c.finish()
		t.h.publish(Event{Type: kind, Status: t.status(), AttachID: c.r.AttachID})
	}
}

// leaveOpen lets the clients go that want to be, now that all output is with them.
// It reports whether there was one.
func (t *task) leaveOpen() (left bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clients = slices.DeleteFunc(t.clients, func(c *client) bool {
		ok := c.r.LeaveOpen && c.leaveOpen()
		left = left || ok
		return ok
	})
	return left
}

// detachAll ends all streams, the process having ended.
func (t *task) detachAll() {
	t.mu.Lock()
	list := t.clients
	t.clients = nil
	t.mu.Unlock()
	for _, c := range list {
		c.finish()
		t.h.publish(Event{Type: EventEnd, Status: t.status(), AttachID: c.r.AttachID})
	}
}
