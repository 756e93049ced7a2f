package container

import (
	"context"
	"runtime/trace"
	"strconv"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/shim"
)

// watch follows what the shim tells until the context ends. The shim repeats
// every exit that was not acknowledged, so a cut connection loses none.
func (m *Manager) watch(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := m.opts.Shim.Events(ctx)
		if err != nil {
			if ctx.Err() == nil {
				m.opts.Log.Error("cannot follow the shim", "error", err)
			}
		} else {
			for e := range events {
				m.handle(ctx, e)
			}
		}
		if ctx.Err() == nil {
			m.reconnect(ctx)
		}
	}
}

// reconnect waits for a shim that is gone to be back, and takes over what it
// adopted.
func (m *Manager) reconnect(ctx context.Context) {
	for wait := 10 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, time.Second) {
		statuses, err := m.opts.Shim.List(ctx)
		if err == nil {
			m.reconcile(ctx, statuses)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (m *Manager) handle(ctx context.Context, e shim.Event) {
	c, err := m.lookup(e.Status.ID)
	if err != nil {
		// A container that is gone already; its exit interests nobody.
		if e.Type == shim.EventExit {
			m.opts.Shim.Forget(ctx, e.Status.ID, e.Status.ExecID)
		}
		return
	}
	switch e.Type {
	case shim.EventExit:
		if e.Status.ExecID != "" {
			m.execExited(ctx, c, &e.Status)
			return
		}
		if e.LeftOpen {
			c.freeLine()
		}
		// Others must hear of their exits while this one waits for an
		// operation in progress or is being removed.
		go m.exited(ctx, c, &e.Status)
	case shim.EventOOM:
		m.publish(c, events.ActionOOM)
	case shim.EventDetach:
		if e.Status.ExecID != "" {
			m.publish(c, events.ActionExecDetach, "execID", e.Status.ExecID)
		} else {
			m.publish(c, events.ActionDetach)
		}
	case shim.EventEnd:
		if e.AttachID == lineID {
			c.takeLine().close() // the client has gone
		}
	}
}

// exited records the end of a run and does what follows from it.
func (m *Manager) exited(ctx context.Context, c *Container, s *shim.Status) {
	ctx = context.WithoutCancel(ctx)
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.copy()
	if !rec.running() || !s.StartedAt.Equal(rec.State.StartedAt) && s.StartedAt.Before(rec.State.StartedAt) {
		m.opts.Shim.Forget(ctx, rec.ID, "")
		return // known already, or of an earlier run
	}
	defer trace.StartRegion(ctx, "container.exited").End()
	m.stopHealth(c)
	c.endExecs()
	region := trace.StartRegion(ctx, "network.Disconnect")
	if err := m.opts.Networks.Disconnect(ctx, rec.ID); err != nil {
		m.opts.Log.Error("cannot release the network", "container", rec.ID, "error", err)
	}
	region.End()
	m.leaveVolumes(&rec)
	m.unmountShm(&rec)
	restart, wait := m.restartDecision(&rec, c, s)
	c.mu.Lock()
	removes := rec.HostConfig.AutoRemove && c.keep == 0
	c.rec.Network = nil
	c.rec.State = State{
		Status:     api.StateExited,
		ExitCode:   s.ExitCode,
		OOMKilled:  s.OOMKilled,
		StartedAt:  rec.State.StartedAt,
		FinishedAt: s.ExitedAt,
		Error:      exitError(s),
	}
	if restart {
		c.rec.State.Status = api.StateRestarting
		c.rec.RestartCount++
	}
	c.mu.Unlock()
	if removes {
		m.died(c, s)
		c.wake(waitExit)
		// Until nothing is left of it but those who were told, the shim alone knows
		// how it ended: should this daemon die, the next one asks (reconcile).
		if err := m.remove(ctx, c, RemoveOptions{Volumes: true}); err != nil {
			m.opts.Log.Error("cannot remove a container after its exit", "container", rec.ID, "error", err)
		}
		m.opts.Shim.Forget(ctx, rec.ID, "")
		return
	}
	if err := m.saveState(c); err != nil {
		m.opts.Log.Error("cannot record an exit", "container", rec.ID, "error", err)
	} else {
		m.opts.Shim.Forget(ctx, rec.ID, "")
	}
	m.died(c, s)
	c.wake(waitExit)
	if restart {
		m.restartLater(ctx, c, wait)
	}
	if !c.isDoomed() {
		// After a boot the code must still be known; nobody waits for this write.
		go m.saveDurably(c)
	}
}

func (m *Manager) died(c *Container, s *shim.Status) {
	m.publish(c, events.ActionDie, "exitCode", strconv.Itoa(s.ExitCode),
		"execDuration", strconv.Itoa(int(s.ExitedAt.Sub(s.StartedAt).Seconds())))
}

func (c *Container) doom(doomed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doomed = doomed
}

// isDoomed says whether the container is being killed to be removed. The write of
// its exit would only be waited for, by its removal.
func (c *Container) isDoomed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doomed
}

// saveDurably writes the record to disk unless the container was removed.
func (m *Manager) saveDurably(c *Container) {
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.copy()
	if rec.State.Status == api.StateRemoving || !m.known(rec.ID) {
		return
	}
	if err := m.save(c); err != nil {
		m.opts.Log.Error("cannot record a container", "container", rec.ID, "error", err)
	}
}

func (m *Manager) known(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byID[id] != nil
}

// unknownExit is the exit code shown when the kernel cannot tell it any more:
// not 0, which would be a lie.
const unknownExit = 255

func exitError(s *shim.Status) string {
	if s.ExitUnknown {
		return "the exit code is unknown: the shim was not there when the container ended"
	}
	return ""
}
