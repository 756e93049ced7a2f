package container

import (
	"context"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/shim"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
	stableRun    = 10 * time.Second // a run this long starts the waits anew
)

// restartDecision applies the restart policy to an exit.
func (m *Manager) restartDecision(rec *Record, c *Container, s *shim.Status) (restart bool, wait time.Duration) {
	policy := rec.HostConfig.RestartPolicy
	switch {
	case rec.ManuallyStopped:
		return false, 0
	case policy.IsAlways(), policy.IsUnlessStopped():
	case policy.IsOnFailure() && s.ExitCode != 0 &&
		(policy.MaximumRetryCount == 0 || rec.RestartCount < policy.MaximumRetryCount):
	default:
		return false, 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.backoff == 0 || s.ExitedAt.Sub(s.StartedAt) >= stableRun:
		c.backoff = firstBackoff
	default:
		c.backoff = min(2*c.backoff, maxBackoff)
	}
	return true, c.backoff
}

// restartLater starts the container again after the wait, unless a person
// decides otherwise before.
func (m *Manager) restartLater(ctx context.Context, c *Container, wait time.Duration) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.mu.Lock()
	c.retry = cancel
	c.mu.Unlock()
	go func() {
		defer cancel()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		c.op.Lock()
		defer c.op.Unlock()
		if ctx.Err() != nil || c.copy().State.Status != api.StateRestarting {
			return
		}
		if err := m.start(ctx, c); err != nil {
			m.opts.Log.Error("cannot restart a container", "container", c.copy().ID, "error", err)
		}
	}()
}

// cancelRetry takes back a restart that waits.
func (c *Container) cancelRetry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retry != nil {
		c.retry()
		c.retry = nil
	}
}

// startAfterBoot tells whether a container that does not run is to be started
// when the engine starts.
func (r *Record) startAfterBoot() bool {
	policy := r.HostConfig.RestartPolicy
	switch {
	case !r.HasBeenStarted:
		return false
	case policy.IsAlways():
		return true
	case policy.IsUnlessStopped():
		return !r.ManuallyStopped
	case policy.IsOnFailure():
		return !r.ManuallyStopped && r.State.ExitCode != 0 &&
			(policy.MaximumRetryCount == 0 || r.RestartCount < policy.MaximumRetryCount)
	}
	return r.State.Status == api.StateRestarting
}
