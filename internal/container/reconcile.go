package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/shim"
)

// reconcile compares the records with what the shim held a moment ago. Where
// they differ the shim is asked once more, with the operation on the container
// that may be under way at an end.
func (m *Manager) reconcile(ctx context.Context, statuses []shim.Status) {
	held := map[string]shim.Status{}
	for _, s := range statuses {
		if s.ExecID == "" {
			held[s.ID] = s
		}
	}
	for _, c := range m.all() {
		rec := c.copy()
		s, ok := held[rec.ID]
		switch {
		case ok && (s.Running || unrecorded(&rec, &s)):
			m.adopt(ctx, c, &s)
		case ok:
			// Its exit comes as an event, with all that follows from it.
		case rec.running():
			m.lost(ctx, c)
		}
	}
	for _, s := range statuses {
		c, err := m.lookup(s.ID)
		switch {
		case err == nil && s.ExecID != "":
			m.adoptExec(c, &s)
		case err != nil && s.ExecID == "" && s.Running:
			m.opts.Log.Warn("the shim holds a container nobody knows; it is killed", "container", s.ID)
			m.opts.Shim.Signal(ctx, s.ID, "", syscall.SIGKILL, true)
		case err != nil && s.ExecID == "":
			m.farewellOf(&s)
		}
	}
}

// unrecorded tells whether a run that has ended is one the record knows nothing
// of: the daemon died before it could note the start.
func unrecorded(rec *Record, s *shim.Status) bool {
	return !rec.running() && s.StartedAt.After(rec.State.StartedAt)
}

// holds asks the shim about a container's first process.
func (m *Manager) holds(ctx context.Context, id string) (*shim.Status, error) {
	statuses, err := m.opts.Shim.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range statuses {
		if s.ID == id && s.ExecID == "" {
			return &s, nil
		}
	}
	return nil, nil
}

// adopt takes a container over that runs, or has, also one whose start was not
// recorded: then its end, when it comes or when it came, is that of a run like
// any other.
func (m *Manager) adopt(ctx context.Context, c *Container, s *shim.Status) {
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.copy()
	if !rec.running() || !s.StartedAt.Equal(rec.State.StartedAt) {
		var err error
		s, err = m.holds(ctx, rec.ID)
		if err != nil || s == nil || !m.known(rec.ID) || !s.Running && !unrecorded(&rec, s) {
			return
		}
	}
	c.mu.Lock()
	if !c.rec.running() {
		c.rec.State = State{Status: api.StateRunning}
		c.rec.HasBeenStarted = true
	}
	c.rec.State.Pid, c.rec.State.StartTime, c.rec.State.StartedAt = s.Pid, s.StartTime, s.StartedAt
	if s.Running {
		c.rec.State.Status = m.frozenOrNot(&rec)
	}
	if c.rec.Network == nil {
		c.rec.Network = m.opts.Networks.Connected(rec.ID)
	}
	watched := c.health != nil
	c.mu.Unlock()
	if err := m.saveState(c); err != nil {
		m.opts.Log.Error("cannot record an adopted container", "container", rec.ID, "error", err)
	}
	if s.Running && !watched {
		m.startHealth(c)
	}
}

// frozenOrNot asks the kernel: a pause, or the end of one, may have happened
// without having been recorded.
func (m *Manager) frozenOrNot(rec *Record) api.ContainerState {
	frozen, err := cgroup.New(m.cgroupPath(rec)).Frozen()
	switch {
	case err != nil && rec.State.Status == api.StatePaused, frozen:
		return api.StatePaused
	}
	return api.StateRunning
}

// adoptExec makes an exec of the daemon before known, so that a client that was
// attached to it learns its exit code.
func (m *Manager) adoptExec(c *Container, s *shim.Status) {
	e := &execution{id: s.ExecID, container: c, started: true, running: true, pid: s.Pid, ready: make(chan struct{})}
	close(e.ready)
	e.request = api.ExecCreateRequest{Cmd: commandOf(s), AttachStdout: true, AttachStderr: true}
	m.mu.Lock()
	_, known := m.execs[s.ExecID]
	if !known {
		m.execs[s.ExecID] = e
	}
	m.mu.Unlock()
	if known {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs == nil {
		c.execs = map[string]*execution{}
	}
	c.execs[s.ExecID] = e
}

// commandOf reads what a process runs; of one that has ended nothing is known.
func commandOf(s *shim.Status) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.Pid))
	if !s.Running || err != nil || len(b) == 0 {
		return []string{""}
	}
	return strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00")
}

// lost records the end of a container nobody saw end: the machine went down.
func (m *Manager) lost(ctx context.Context, c *Container) {
	rec := c.copy()
	if s, err := m.holds(ctx, rec.ID); err != nil || s != nil {
		return // it was started just now
	}
	m.exited(ctx, c, &shim.Status{
		ID: rec.ID, ExitCode: unknownExit, ExitUnknown: true,
		StartedAt: rec.State.StartedAt, ExitedAt: time.Now().UTC(),
	})
}
