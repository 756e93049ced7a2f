package shim

import (
	"errors"
	"net"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// subscriber is a connection that is told of events.
type subscriber struct {
	conn *net.UnixConn
	pid  int // of the process at the other end, the daemon

	mu      sync.Mutex // guards everything below
	queue   []Event
	more    sync.Cond
	sending bool // somebody sends what came before
	closed  bool
}

// maxQueue is how many events wait for a subscriber before it is given up: it
// then subscribes again and is told all exits.
const maxQueue = 100_000

func newSubscriber(conn *net.UnixConn) *subscriber {
	s := &subscriber{conn: conn}
	s.more.L = &s.mu
	if cred, err := peer(conn); err == nil {
		s.pid = int(cred.Pid)
	}
	return s
}

// publish tells everybody of e. It does not block.
func (h *Holder) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.watch {
		s.add(e)
		s.more.Signal()
	}
}

// publishExit ends t in one step: a subscriber that comes meanwhile is told of
// it either with all former exits or now.
func (h *Holder) publishExit(t *task, leftOpen bool) {
	e := Event{Type: EventExit, Status: t.status(), LeftOpen: leftOpen}
	h.mu.Lock()
	close(t.ended)
	told := make([]*subscriber, 0, 1)
	for s := range h.watch {
		s.add(e)
		told = append(told, s)
	}
	h.mu.Unlock()
	for _, s := range told {
		s.sendNow()
	}
}

// add queues an event. deliver still has to hear of it.
func (s *subscriber) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxQueue {
		s.closed = true
	} else {
		s.queue = append(s.queue, e)
	}
}

// subscribe makes conn a stream of events, the first of which are all exits
// nobody has forgotten. It returns when the connection is gone.
func (h *Holder) subscribe(conn *net.UnixConn) {
	s := newSubscriber(conn)
	h.mu.Lock()
	for _, t := range h.tasks {
		select {
		case <-t.ended:
			if st := t.status(); st.Pid != 0 {
				s.queue = append(s.queue, Event{Type: EventExit, Status: st})
			}
		default:
		}
	}
	slices.SortFunc(s.queue, func(a, b Event) int { return a.ExitedAt.Compare(b.ExitedAt) })
	h.watch[s] = struct{}{}
	h.mu.Unlock()
	h.follow(s)
}

// follow delivers until the connection is gone.
func (h *Holder) follow(s *subscriber) {
	go h.deliver(s)
	// A subscriber says nothing more: this returns when it has gone.
	var b [1]byte
	s.conn.Read(b[:])
	h.mu.Lock()
	delete(h.watch, s)
	h.mu.Unlock()
	s.mu.Lock()
	s.closed = true
	s.more.Signal()
	s.mu.Unlock()
	h.bereave(s.pid)
}

// deliver sends events one by one, each whole or, when the subscriber does not
// read during an upgrade, none any more.
func (h *Holder) deliver(s *subscriber) {
	defer s.conn.Close()
	for s.wait() {
		ok := false
		h.guarded(func() { ok = s.sendOne() })
		if !ok {
			return
		}
	}
}

// wait blocks until there is an event to send. It reports false when it is over.
func (s *subscriber) wait() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.queue) == 0 || s.sending) && !s.closed {
		s.more.Wait()
	}
	return !s.closed
}

// sendNow sends the event that was just added, if that cannot block: deliver may
// have to wait for a processor, and whoever waits for an exit with it.
func (s *subscriber) sendNow() {
	if n, err := unsent(s.conn); err == nil && n == 0 {
		s.sendOne()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 || s.closed {
		s.more.Signal()
	}
}

// sendOne sends the first event, unless there is none or somebody sends already.
func (s *subscriber) sendOne() bool {
	s.mu.Lock()
	if len(s.queue) == 0 || s.sending || s.closed {
		defer s.mu.Unlock()
		return !s.closed
	}
	e := s.queue[0]
	s.queue = s.queue[1:]
	if len(s.queue) == 0 {
		s.queue = nil
	}
	s.sending = true
	s.mu.Unlock()
	err := send(s.conn, e, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = false
	s.closed = s.closed || err != nil
	s.more.Signal()
	return !s.closed
}

// unsent is how many bytes the other side of a connection has not read.
func unsent(conn *net.UnixConn) (n int, err error) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	return n, errors.Join(cerr, err)
}
