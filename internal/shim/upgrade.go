package shim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/timerslack"
)

const stateEnv = "GANTRY_SHIM_STATE"

// upgrading makes blocked writes give up, so that nobody holds the gate for long.
var upgrading atomic.Bool

// upgradePatience is how long an upgrade waits for what is under way. Nothing
// else is done meanwhile, so it is short.
const upgradePatience = 3 * time.Second

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// serveUpgrade replaces the running program. It only returns, and answers, when
// that did not work; otherwise the new program answers.
func (h *Holder) serveUpgrade(c *net.UnixConn, r *request) error {
	_, err := decode(r, func(b *upgradeBody) (any, error) { return nil, h.upgrade(b.Binary, c) })
	return answer(c, nil, err)
}

func (h *Holder) upgrade(binary string, requester *net.UnixConn) error {
	done := h.orphans.spawning()
	err := check(binary)
	done()
	if err != nil {
		return err
	}
	upgrading.Store(true)
	h.interrupt(past)
	shut := h.gate.shut(upgradePatience)
	defer func() {
		h.interrupt(time.Time{})
		upgrading.Store(false)
		if shut {
			h.gate.open()
		}
		h.flushAll()
	}()
	if !shut {
		return errs.Unavailable("cannot upgrade the shim: a request takes too long")
	}
	h.spares.clear()
	hand := &hands{}
	state := h.pack(hand, requester)
	defer h.reopenLogs(state)
	var fd int
	fd, err = hand.memfd(state)
	if err != nil {
		return errs.System("cannot upgrade the shim: %w", err)
	}
	defer unix.Close(fd)
	if hand.err != nil {
		return errs.System("cannot upgrade the shim: %w", hand.err)
	}
	h.log.Info("upgrading", "binary", binary)
	env := append(os.Environ(), stateEnv+"="+strconv.Itoa(fd))
	hand.inherit(true)
	timerslack.Strictly(func() {
		err = syscall.Exec(binary, []string{binary, "io", "--exec-root", h.execRoot}, env)
	})
	hand.inherit(false)
	return errs.System("cannot execute %s: %w", binary, err)
}

// check runs the new binary once: one that cannot run, is no gantry-shim, or
// reads another form of state is refused while nothing has happened yet.
func check(binary string) error {
	cmd := exec.Command(binary, "version")
	cmd.Env = []string{}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return errs.InvalidArgument("cannot upgrade to %s: %w", binary, err)
	}
	if v := strings.Fields(out.String()); !slices.Contains(v, Version) {
		return errs.InvalidArgument("cannot upgrade to %s: it understands the versions %q, not %s", binary, v, Version)
	}
	return nil
}

// interrupt sets the deadline of all that may block while holding the gate.
func (h *Holder) interrupt(deadline time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.present() {
		t.mu.Lock()
		if t.in != nil {
			t.in.SetWriteDeadline(deadline)
		}
		for _, c := range t.clients {
			c.conn.SetWriteDeadline(deadline)
		}
		t.mu.Unlock()
	}
	for s := range h.watch {
		s.conn.SetWriteDeadline(deadline)
	}
}

func (h *Holder) flushAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.present() {
		t.mu.Lock()
		for _, c := range t.clients {
			go h.guarded(c.flush)
		}
		t.mu.Unlock()
	}
}

// hands collects the descriptors that pass through execve.
type hands struct {
	fds []int
	err error
}

type conner interface {
	SyscallConn() (syscall.RawConn, error)
}

// give returns the number of a descriptor that is to be handed over.
func (g *hands) give(f conner) int {
	rc, err := f.SyscallConn()
	if err == nil {
		err = rc.Control(func(fd uintptr) { g.fds = append(g.fds, int(fd)) })
	}
	if err != nil {
		if g.err == nil {
			g.err = err
		}
		return -1
	}
	return g.fds[len(g.fds)-1]
}

func (g *hands) inherit(yes bool) {
	flag := unix.FD_CLOEXEC
	if yes {
		flag = 0
	}
	for _, fd := range g.fds {
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
	}
}

func (g *hands) memfd(state *handover) (int, error) {
	raw, err := json.Marshal(state)
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("gantry-shim-state", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	g.fds = append(g.fds, fd)
	for off := 0; off < len(raw); {
		n, err := unix.Pwrite(fd, raw[off:], int64(off))
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		off += n
	}
	return fd, nil
}

// pack describes everything. The gate is shut.
func (h *Holder) pack(g *hands, requester *net.UnixConn) *handover {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &handover{Version: Version, Listener: g.give(h.listener), Lock: g.give(h.lock), Requester: g.give(requester)}
	h.store.mu.Lock()
	s.Ports = maps.Clone(h.store.ports)
	h.store.mu.Unlock()
	for sub := range h.watch {
		sub.mu.Lock()
		if !sub.closed { // one that did not read has to subscribe again
			s.Subscribers = append(s.Subscribers, handSubscriber{g.give(sub.conn), sub.queue})
		}
		sub.mu.Unlock()
	}
	for t := range h.present() {
		packed := t.pack(g)
		packed.Forgotten = h.leaving[t.key] == t
		s.Tasks = append(s.Tasks, packed)
	}
	for _, list := range h.pending {
		for _, c := range list {
			s.Pending = append(s.Pending, c.pack(g))
		}
	}
	return s
}

func (t *task) pack(g *hands) handTask {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := handTask{Record: t.rec, Files: map[string]int{}}
	if t.over() {
		return out
	}
	add := func(name string, f *os.File) {
		// A file that is closed (input that has ended) is simply not there.
		if control(f, func(int) error { return nil }) == nil {
			out.Files[name] = g.give(f)
		}
	}
	add(holdPidfd, t.pidfd)
	add(holdStdout, t.out[logs.Stdout])
	add(holdStderr, t.out[logs.Stderr])
	if !t.rec.Terminal {
		add(holdStdin, t.in)
	}
	if t.log != nil {
		out.Unfinished = t.log.Unfinished()
	}
	for _, c := range t.clients {
		out.Clients = append(out.Clients, c.pack(g))
	}
	return out
}

func (c *client) pack(g *hands) handClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	return handClient{
		Request: c.r, Conn: g.give(c.conn), By: c.by, Typed: c.keys.typed,
		Unsent: c.unsent, Unfed: c.unfed, InputDone: c.inputDone,
	}
}

// reopenLogs undoes what pack did to the logs when the upgrade failed.
func (h *Holder) reopenLogs(s *handover) {
	for _, ht := range s.Tasks {
		k := key{ht.Record.ID, ht.Record.ExecID}
		h.mu.Lock()
		t := cmp.Or(h.tasks[k], h.leaving[k])
		h.mu.Unlock()
		if t == nil || t.log == nil || t.over() {
			continue
		}
		w, err := logs.NewWriter(*t.rec.Log)
		if err != nil {
			h.log.Error("cannot continue a log", "process", t.key.String(), "error", err)
			continue
		}
		w.Resume(ht.Unfinished)
		t.log = w
	}
}
