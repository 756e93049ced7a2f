package shim

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// handover is what one binary tells the next about the descriptors it leaves
// open. It passes through a memfd whose number is in stateEnv.
type handover struct {
	Version     string
	Listener    int
	Lock        int
	Requester   int // is waiting for the answer to its upgrade request
	Subscribers []handSubscriber
	Tasks       []handTask
	Pending     []handClient
	Ports       map[string][]portproxy.Mapping
}

type handTask struct {
	Record     record
	Files      map[string]int // by the names of the store
	Unfinished []logs.Unfinished
	Clients    []handClient
	Forgotten  bool `json:",omitempty"` // it is leaving
}

type handSubscriber struct {
	Conn  int
	Queue []Event `json:",omitempty"`
}

type handClient struct {
	Request   AttachRequest // Unread included
	Conn      int
	By        int    `json:",omitempty"`
	Typed     int    `json:",omitempty"` // of the detach keys
	Unsent    []byte `json:",omitempty"`
	Unfed     []byte `json:",omitempty"`
	InputDone bool   `json:",omitempty"`
}

// readHandover reads what the binary before this one left, if it left anything.
func readHandover() (*handover, error) {
	v := os.Getenv(stateEnv)
	if v == "" {
		return nil, nil
	}
	os.Unsetenv(stateEnv)
	fd, err := strconv.Atoi(v)
	if err != nil {
		return nil, fmt.Errorf("%s is %q", stateEnv, v)
	}
	f := os.NewFile(uintptr(fd), "state")
	defer f.Close()
	var s handover
	if _, err := f.Seek(0, 0); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(f).Decode(&s); err != nil {
		return nil, err
	}
	return &s, nil
}

// handed takes over a descriptor.
func handed(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// restore makes the holder what it was.
func (h *Holder) restore(s *handover) {
	// Subscribers first: they hear of what happens from now on.
	for _, hs := range s.Subscribers {
		if conn := handedConn(hs.Conn); conn != nil {
			sub := newSubscriber(conn)
			sub.queue = hs.Queue
			h.mu.Lock()
			h.watch[sub] = struct{}{}
			h.mu.Unlock()
			go h.follow(sub)
		}
	}
	for _, hc := range s.Pending {
		c := hc.restore()
		c.watched = make(chan struct{})
		k := key{c.r.ID, c.r.ExecID}
		h.mu.Lock()
		h.pending[k] = append(h.pending[k], c)
		h.mu.Unlock()
		go h.awaitPending(k, c)
	}
	for _, ht := range s.Tasks {
		h.restoreTask(&ht)
	}
	if conn := handedConn(s.Requester); conn != nil {
		answer(conn, nil, nil)
		go h.serveConn(conn)
	}
}

func (h *Holder) restoreTask(ht *handTask) {
	t := newTask(h, key{ht.Record.ID, ht.Record.ExecID})
	t.rec = ht.Record
	h.mu.Lock()
	if ht.Forgotten {
		h.leaving[t.key] = t
	} else {
		h.tasks[t.key] = t
	}
	h.mu.Unlock()
	file := func(name string) *os.File {
		if fd, ok := ht.Files[name]; ok {
			return handed(fd, name)
		}
		return nil
	}
	t.pidfd, t.in = file(holdPidfd), file(holdStdin)
	t.out[logs.Stdout], t.out[logs.Stderr] = file(holdStdout), file(holdStderr)
	if t.rec.Terminal {
		t.in = t.out[logs.Stdout]
	}
	if t.rec.Running || len(ht.Files) > 0 {
		h.orphans.know(t.rec.Pid)
	}
	if t.rec.Log != nil && len(ht.Files) > 0 {
		if w, err := logs.NewWriter(*t.rec.Log); err == nil {
			w.Resume(ht.Unfinished)
			t.log = w
		} else {
			h.log.Error("cannot continue a log", "process", t.key.String(), "error", err)
		}
	}
	switch {
	case t.rec.Running:
		t.restoreClients(ht.Clients)
		for _, c := range t.clients {
			go t.serve(c)
		}
		t.run()
	case len(ht.Files) > 0: // it was ending
		t.restoreClients(ht.Clients)
		close(t.ended)
		go t.finishEnding()
	default:
		close(t.ended)
		close(t.gone)
	}
}

// restoreClients takes clients over. What they were being sent is output like that
// which the pumps send: their streams do not end before.
func (t *task) restoreClients(list []handClient) {
	for _, hc := range list {
		c := hc.restore()
		t.clients = append(t.clients, c)
		t.pumps.Go(func() { t.h.guarded(c.flush) })
	}
}

// finishEnding goes on where wait was interrupted after the exit was told.
func (t *task) finishEnding() {
	t.h.orphans.forget(t.rec.Pid)
	for s, f := range t.out {
		if f != nil {
			t.pumps.Go(func() { t.pump(logs.Stream(s), f) })
		}
	}
	<-t.drainPumps()
	t.closeLog()
	t.h.guarded(t.cleanUp)
}

func (hc *handClient) restore() *client {
	c := &client{
		r: hc.Request, conn: handed(hc.Conn, "client"), unsent: hc.Unsent, unfed: hc.Unfed,
		by: hc.By, inputDone: hc.InputDone, over: make(chan struct{}),
	}
	c.keys = detachKeys{sequence: detachSequence(&c.r), typed: hc.Typed}
	return c
}

func handedConn(fd int) *net.UnixConn {
	f := handed(fd, "connection")
	if f == nil {
		return nil
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	conn, _ := c.(*net.UnixConn)
	return conn
}
