package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/trace"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

// Remove deletes a container. A running one is errdefs.ErrConflict, unless it
// is to be killed first.
func (m *Manager) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return errs.InvalidArgument("legacy links do not exist here: %s names none", ref)
	}
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	rec := c.copy()
	if rec.State.Status == api.StateRemoving {
		return errs.Conflict("removal of container %s is already in progress", ref)
	}
	if err := m.lockForRemoval(ctx, c, o.Force); err != nil {
		return err
	}
	defer c.op.Unlock()
	if !m.known(rec.ID) {
		return nil // it removed itself when it was killed
	}
	return m.remove(context.WithoutCancel(ctx), c, o)
}

// lockForRemoval takes op, with force of a container that does not run: one that
// was being started while it was to be killed is killed once more.
func (m *Manager) lockForRemoval(ctx context.Context, c *Container, force bool) error {
	for {
		if force {
			if err := m.killForRemoval(ctx, c); err != nil {
				return err
			}
		}
		c.op.Lock()
		rec := c.copy()
		if !force || !rec.running() {
			return nil
		}
		c.op.Unlock()
	}
}

func (m *Manager) killForRemoval(ctx context.Context, c *Container) (err error) {
	rec := c.copy()
	c.cancelRetry()
	c.mu.Lock()
	c.rec.ManuallyStopped = true
	c.mu.Unlock()
	if !rec.running() {
		return nil
	}
	ended, err := m.Wait(ctx, rec.ID, api.WaitConditionNotRunning)
	if err != nil {
		return nil // gone
	}
	c.doom(true)
	defer func() {
		if err != nil {
			c.doom(false)
		}
	}()
	if rec.State.Status == api.StatePaused {
		// On cgroup v1 a frozen process does not even die.
		m.opts.Shim.Signal(ctx, rec.ID, "", syscall.SIGKILL, false)
		m.Unpause(ctx, rec.ID)
	}
	m.signal(ctx, c, syscall.SIGKILL)
	if !within(ctx, ended, 10*time.Second) && ctx.Err() == nil {
		return errs.Unavailable("cannot remove container %s: it did not end within 10 seconds of SIGKILL", rec.Name)
	}
	return ctx.Err()
}

// remove is called with op held.
func (m *Manager) remove(ctx context.Context, c *Container, o RemoveOptions) error {
	rec := c.copy()
	if rec.running() {
		state := "running"
		if rec.State.Status == api.StatePaused {
			state = "paused"
		}
		return errs.Conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+rec.Name, state)
	}
	if rec.State.Status == api.StateRestarting && !o.Force {
		return errs.Conflict("cannot remove container %q: container is restarting: stop the container before removing or force remove", "/"+rec.Name)
	}
	c.cancelRetry()
	c.mu.Lock()
	before := c.rec.State.Status
	c.rec.State.Status, c.rec.RemoveVolumes = api.StateRemoving, o.Volumes
	c.mu.Unlock()
	if !rec.HostConfig.AutoRemove || !rec.HasBeenStarted {
		// A crash in the middle must not leave half a container that looks
		// whole. What ran with AutoRemove is removed by the next daemon anyway.
		if err := m.saveState(c); err != nil {
			m.opts.Log.Error("cannot record a removal", "container", rec.ID, "error", err)
		}
	}
	if err := m.erase(ctx, &rec, o); err != nil {
		c.mu.Lock()
		c.rec.State.Status, c.rec.State.Error = api.StateDead, err.Error()
		if before == api.StateCreated {
			c.rec.State.Status = before
		}
		c.mu.Unlock()
		if serr := m.save(c); serr != nil {
			m.opts.Log.Error("cannot record a failed removal", "container", rec.ID, "error", serr)
		}
		return err
	}
	m.sayFarewell(c, &rec)
	m.forget(c)
	c.forgetExecs(m)
	m.publish(c, events.ActionDestroy)
	c.wake(waitExit)
	c.wake(waitRemoved)
	return nil
}

// erase takes everything of the container from the disk. The record goes last:
// after a crash in the middle, the removal can be asked for again.
func (m *Manager) erase(ctx context.Context, rec *Record, o RemoveOptions) error {
	defer trace.StartRegion(ctx, "container.erase").End()
	var failed []error
	m.unmountShm(rec) // of a start that failed
	for _, mnt := range rec.Mounts {
		if mnt.Type == mount.TypeVolume {
			if err := m.opts.Volumes.Release(ctx, mnt.Name, rec.ID, o.Volumes); err != nil {
				failed = append(failed, err)
			}
		}
	}
	if err := m.opts.Snapshots.Remove(ctx, rec.ID); err != nil && !errdefs.IsNotFound(err) {
		failed = append(failed, err)
	}
	if rec.HostConfig.AutoRemove {
		m.bin.Throw(m.dir(rec.ID)) // sweep finds it after a crash
	} else if err := os.RemoveAll(m.dir(rec.ID)); err != nil {
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("cannot remove container %s: %w", rec.Name, err)
	}
	return m.table.Delete(rec.ID)
}

// Prune removes the containers that do not run and match the filters: until,
// label, label!.
func (m *Manager) Prune(ctx context.Context, f filter.Args) (*api.PruneReport, error) {
	if err := f.Validate("until", "label", "label!"); err != nil {
		return nil, err
	}
	until, err := f.Until(time.Now())
	if err != nil {
		return nil, err
	}
	report := &api.PruneReport{}
	for _, c := range m.all() {
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		rec := c.copy()
		if rec.running() || rec.State.Status == api.StateRestarting || rec.State.Status == api.StateRemoving ||
			!until.IsZero() && rec.Created.After(until) || !f.MatchLabels(rec.Config.Labels) {
			continue
		}
		size, _ := m.Disk(ctx, rec.ID)
		if err := m.Remove(ctx, rec.ID, RemoveOptions{}); err != nil {
			m.opts.Log.Warn("cannot prune a container", "container", rec.ID, "error", err)
			continue
		}
		report.ContainersDeleted = append(report.ContainersDeleted, rec.ID)
		report.SpaceReclaimed += uint64(size)
	}
	m.publishPrune(report.SpaceReclaimed)
	return report, nil
}
