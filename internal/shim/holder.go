package shim

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt"
)

// Holder is the io role: all processes of one exec root.
type Holder struct {
	execRoot string
	log      *slog.Logger
	store    *storeClient // the net role

	// Whoever executes a request or moves data is inside the gate, so that an
	// upgrade, which shuts it, finds nothing half done.
	gate *gate

	mu      sync.Mutex // guards everything below
	tasks   map[key]*task
	leaving map[key]*task     // forgotten, and their cgroup is still being removed
	pending map[key][]*client // attached before there was a process
	watch   map[*subscriber]struct{}
	closing bool

	listener *os.File // of shim.sock; io never gives it up
	lock     *os.File // of shim.lock: one io per exec root

	orphans reaper
	filters filters
	spares  *spares

	baseOnce sync.Once
	baseNS   *os.File // see base
}

// base is the mount namespace containers start from, made with the first. Where
// it cannot be made they start from the host's, which takes longer.
func (h *Holder) base() *os.File {
	h.baseOnce.Do(func() {
		var err error
		if h.baseNS, err = ocirt.NewBase(context.Background()); err != nil {
			h.log.Warn("containers start slower", "error", err)
		}
	})
	return h.baseNS
}

// key names a process: a container's first one when exec is "".
type key struct{ id, exec string }

func (k key) String() string {
	if k.exec == "" {
		return "container " + k.id
	}
	return "exec " + k.exec
}

func newHolder(execRoot string, log *slog.Logger) *Holder {
	h := &Holder{
		execRoot: execRoot,
		log:      log,
		gate:     newGate(),
		tasks:    map[key]*task{},
		leaving:  map[key]*task{},
		pending:  map[key][]*client{},
		watch:    map[*subscriber]struct{}{},
	}
	h.spares = newSpares(h)
	return h
}

// dir is where a container's state is kept. The exec root is a tmpfs, so this is
// gone at boot, as the container is.
func (h *Holder) dir(id string) string { return filepath.Join(h.execRoot, "containers", id) }

// present are the processes of which there is something, also of those that were
// forgotten. mu is held.
func (h *Holder) present() iter.Seq[*task] {
	return func(yield func(*task) bool) {
		for _, list := range []map[key]*task{h.tasks, h.leaving} {
			for _, t := range list {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// find returns a process that is held, running or not.
func (h *Holder) find(k key) (*task, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.tasks[k]; t != nil {
		return t, nil
	}
	return nil, errs.NotFound("the shim holds no %s", k)
}

// running returns a process that has not ended.
func (h *Holder) running(k key) (*task, error) {
	t, err := h.find(k)
	if err != nil {
		return nil, err
	}
	if s := t.status(); !s.Running {
		return nil, errs.Conflict("%s is not running", k)
	}
	return t, nil
}

// reserve makes k the name of a process that is being started. What a former
// process of this name left must be over. The caller is inside the gate.
func (h *Holder) reserve(k key) (*task, error) {
	if err := checkID(k.id); err != nil {
		return nil, err
	}
	if k.exec != "" {
		if err := checkID(k.exec); err != nil {
			return nil, err
		}
	}
	for {
		h.mu.Lock()
		old := h.tasks[k]
		if old == nil {
			old = h.leaving[k]
		}
		switch {
		case h.closing:
			h.mu.Unlock()
			return nil, errs.Unavailable("the shim is shutting down")
		case old == nil || old.over():
			t := newTask(h, k)
			h.tasks[k] = t
			h.mu.Unlock()
			return t, nil
		case old.status().Running:
			h.mu.Unlock()
			return nil, errs.Conflict("%s is running already", k)
		}
		h.mu.Unlock()
		// Its cgroup is being removed: inside the gate, so that waiting for it
		// there would be in the way of an upgrade.
		h.gate.leave()
		<-old.gone
		h.gate.enter()
	}
}

// checkID keeps names that become paths harmless.
func checkID(id string) error {
	if id == "" || len(id) > 200 || id[0] == '.' {
		return errs.InvalidArgument("%q is not an ID", id)
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return errs.InvalidArgument("%q is not an ID", id)
		}
	}
	return nil
}

// unreserve takes a process back that could not be started. Clients that wait
// for it are let go without a shutdown: the daemon has something to tell them.
func (h *Holder) unreserve(t *task) {
	h.mu.Lock()
	if h.tasks[t.key] == t {
		delete(h.tasks, t.key)
	}
	h.mu.Unlock()
	close(t.ended)
	close(t.gone)
	for _, c := range h.takePending(t) {
		c.drop()
	}
}

// takePending returns the clients that wait for a process, which are the
// caller's then.
func (h *Holder) takePending(t *task) []*client {
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := h.pending[t.key]
	delete(h.pending, t.key)
	waiting = append(waiting, t.first...)
	t.first = nil
	return waiting
}

// connectPending connects the clients that came before the process.
func (h *Holder) connectPending(t *task) {
	for _, c := range h.takePending(t) {
		t.connect(c)
	}
}

// forget drops what is known of a process that has ended. A container takes the
// ended processes executed in it along. As long as it has a cgroup its state stays:
// by that the io after one that is killed now finds it.
func (h *Holder) forget(k key) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tasks[k]
	if t == nil {
		return nil
	}
	if t.status().Running {
		return errs.Conflict("%s is running", k)
	}
	delete(h.tasks, k)
	if !t.over() {
		h.leaving[k] = t
	}
	if k.exec != "" {
		return ignoreMissing(os.Remove(t.recordPath()))
	}
	for other, e := range h.tasks {
		if other.id == k.id && !e.status().Running {
			delete(h.tasks, other)
		}
	}
	if !t.over() {
		return nil
	}
	if err := h.removeDir(k.id); err != nil {
		return fmt.Errorf("cannot forget %s: %w", k, err)
	}
	return nil
}

func (h *Holder) list() []Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Status, 0, len(h.tasks))
	for _, t := range h.tasks {
		if s := t.status(); s.Pid != 0 {
			out = append(out, s)
		}
	}
	return out
}

// stop refuses further starts when nothing runs. It returns when what has ended is
// gone: exits are told before, and their cgroups are nobody else's to remove.
func (h *Holder) stop() error {
	for {
		ended, err := h.refuse()
		if err != nil || ended == nil {
			return err
		}
		<-ended.gone
	}
}

// refuse refuses further starts, unless something runs, which is an error, or
// something has ended and is not gone yet, which it returns.
func (h *Holder) refuse() (ended *task, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, t := range h.tasks {
		select {
		case <-t.ended:
			if !t.over() {
				ended = t
			}
		default:
			return nil, errs.Conflict("%s is running", k)
		}
	}
	for _, t := range h.leaving {
		ended = t
	}
	h.closing = ended == nil
	return ended, nil
}
