package container

import (
	"context"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"github.com/gantry-containers/gantry/internal/errs"
)

const defaultStopTimeout = 10 // seconds

// Stop asks the container to end, and kills it after the timeout. A container
// that does not run is errdefs.ErrNotModified.
func (m *Manager) Stop(ctx context.Context, ref string, o StopOptions) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	rec := c.copy()
	if rec.State.Status == api.StateRestarting {
		if stopped, err := m.stopRestarting(c); stopped || err != nil {
			return err
		}
		rec = c.copy() // it was being started
	}
	if !rec.running() {
		return errs.NotModified("container %s is not running", rec.Name)
	}
	return m.stopRunning(ctx, c, o)
}

// stopRestarting ends the wait for the next start of a failing container. It
// reports false when that start has happened.
func (m *Manager) stopRestarting(c *Container) (stopped bool, err error) {
	c.cancelRetry()
	c.op.Lock()
	defer c.op.Unlock()
	c.mu.Lock()
	if c.rec.running() {
		c.mu.Unlock()
		return false, nil
	}
	c.rec.ManuallyStopped = true
	if c.rec.State.Status == api.StateRestarting {
		c.rec.State.Status = api.StateExited
	}
	c.mu.Unlock()
	c.wake(waitExit)
	m.publish(c, events.ActionStop)
	return true, m.save(c)
}

func (m *Manager) stopRunning(ctx context.Context, c *Container, o StopOptions) error {
	rec := c.copy()
	sig, err := stopSignal(&rec, o.Signal)
	if err != nil {
		return err
	}
	timeout := m.stopTimeout(&rec, o.Timeout)
	ended, err := m.Wait(context.WithoutCancel(ctx), rec.ID, api.WaitConditionNotRunning)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.rec.ManuallyStopped = true
	c.mu.Unlock()
	// Were the daemon to die now, the next one must not restart it.
	if err := m.saveState(c); err != nil {
		return err
	}
	if rec.State.Status == api.StatePaused {
		// A frozen process cannot heed a signal.
		if err := m.Unpause(ctx, rec.ID); err != nil {
			return err
		}
	}
	m.signal(ctx, c, sig)
	if !within(ctx, ended, timeout) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		m.signal(ctx, c, syscall.SIGKILL)
		if !within(ctx, ended, 10*time.Second) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return errs.Unavailable("cannot stop container %s: it did not end within 10 seconds of SIGKILL", rec.Name)
		}
	}
	m.publish(c, events.ActionStop)
	return nil
}

// within waits for the answer; a negative timeout waits for ever.
func within(ctx context.Context, ended <-chan api.WaitResponse, timeout time.Duration) bool {
	var expired <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-ended:
		return true
	case <-expired:
		return false
	case <-ctx.Done():
		return false
	}
}

func stopSignal(rec *Record, asked string) (syscall.Signal, error) {
	if asked == "" {
		asked = rec.Config.StopSignal
	}
	if asked == "" {
		return syscall.SIGTERM, nil
	}
	sig, err := signal.ParseSignal(asked)
	if err != nil {
		return 0, errs.InvalidArgument("%w", err)
	}
	return sig, nil
}

func (m *Manager) stopTimeout(rec *Record, asked *int) time.Duration {
	seconds := defaultStopTimeout
	switch {
	case asked != nil:
		seconds = *asked
	case rec.Config.StopTimeout != nil:
		seconds = *rec.Config.StopTimeout
	case m.opts.Defaults.StopTimeout > 0:
		seconds = m.opts.Defaults.StopTimeout
	}
	return time.Duration(seconds) * time.Second
}

// signal sends a signal to the container's first process; one that has ended
// meanwhile is what was wanted.
func (m *Manager) signal(ctx context.Context, c *Container, sig syscall.Signal) error {
	err := m.opts.Shim.Signal(ctx, c.copy().ID, "", sig, false)
	if err == nil {
		m.publish(c, events.ActionKill, "signal", strconv.Itoa(int(sig)))
	}
	return err
}

// Restart stops the container when it runs, and starts it.
func (m *Manager) Restart(ctx context.Context, ref string, o StopOptions) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	rec := c.copy()
	switch {
	case rec.State.Status == api.StateRestarting:
		if stopped, err := m.stopRestarting(c); err != nil {
			return err
		} else if stopped {
			break
		}
		fallthrough // it was being started
	case rec.running():
		if err := m.stopToRestart(ctx, c, o); err != nil {
			return err
		}
	}
	if err := m.Start(ctx, rec.ID); err != nil {
		return err
	}
	m.publish(c, events.ActionRestart)
	return nil
}

// stopToRestart stops a container that an AutoRemove must not remove then.
func (m *Manager) stopToRestart(ctx context.Context, c *Container, o StopOptions) error {
	keep := func(n int) {
		c.mu.Lock()
		c.keep += n
		c.mu.Unlock()
	}
	keep(1)
	defer keep(-1)
	return m.stopRunning(ctx, c, o)
}

const maxSignal = 64 // SIGRTMAX

// Kill sends a signal, SIGKILL when it is empty. A container that does not run
// is errdefs.ErrConflict.
func (m *Manager) Kill(ctx context.Context, ref, name string) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if name != "" {
		if sig, err = signal.ParseSignal(name); err != nil {
			return errs.InvalidArgument("%w", err)
		}
		if sig < 1 || sig > maxSignal {
			return errs.InvalidArgument("the linux daemon does not support signal %d", sig)
		}
	}
	rec := c.copy()
	if rec.State.Status == api.StateRestarting {
		if stopped, err := m.stopRestarting(c); stopped || err != nil {
			return err
		}
		rec = c.copy() // it was being started
	}
	if !rec.running() {
		return errs.Conflict("container %s is not running", rec.ID)
	}
	c.mu.Lock()
	if stop, err := stopSignal(&rec, ""); sig == syscall.SIGKILL || err == nil && sig == stop {
		c.rec.ManuallyStopped = true
	}
	c.mu.Unlock()
	if sig != syscall.SIGKILL {
		return m.signal(ctx, c, sig)
	}
	ended, err := m.Wait(ctx, rec.ID, api.WaitConditionNotRunning)
	if err != nil {
		return err
	}
	if err := m.signal(ctx, c, sig); err != nil {
		return err
	}
	if rec.State.Status == api.StatePaused {
		// On cgroup v1 a frozen process does not even die.
		if err := m.Unpause(ctx, rec.ID); err != nil && !errdefs.IsConflict(err) {
			return err
		}
	}
	if !within(ctx, ended, 10*time.Second) && ctx.Err() == nil {
		return errs.Unavailable("container %s did not end within 10 seconds of SIGKILL", rec.Name)
	}
	return ctx.Err()
}

// Pause freezes every process of the container.
func (m *Manager) Pause(ctx context.Context, ref string) error {
	return m.freeze(ctx, ref, true)
}

// Unpause lets the processes of a paused container run on.
func (m *Manager) Unpause(ctx context.Context, ref string) error {
	return m.freeze(ctx, ref, false)
}

func (m *Manager) freeze(ctx context.Context, ref string, on bool) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.copy()
	var status api.ContainerState
	var action events.Action
	switch {
	case on && !rec.running():
		return errs.Conflict("container %s is not running", rec.ID)
	case on && rec.State.Status == api.StatePaused:
		return errs.Conflict("container %s is already paused", rec.ID)
	case !on && rec.State.Status != api.StatePaused:
		return errs.Conflict("Container %s is not paused", rec.ID)
	case on:
		err, status, action = m.opts.Shim.Pause(ctx, rec.ID), api.StatePaused, events.ActionPause
	default:
		err, status, action = m.opts.Shim.Resume(ctx, rec.ID), api.StateRunning, events.ActionUnPause
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.rec.running() {
		c.rec.State.Status = status
	}
	c.mu.Unlock()
	if err := m.saveState(c); err != nil {
		return err
	}
	m.publish(c, action)
	return nil
}
