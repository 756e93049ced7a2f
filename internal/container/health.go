package container

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/shim"
)

// What a healthcheck does where it does not say.
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
	probeOutputLimit   = 4096
	probesKept         = 5
)

// health watches the health of one run of a container.
type health struct {
	cancel context.CancelFunc

	mu    sync.Mutex // guards what follows
	state api.Health
}

// healthState returns the health as inspect shows it, nil without a check.
func (c *Container) healthState() *api.Health {
	c.mu.Lock()
	h := c.health
	c.mu.Unlock()
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	state := h.state
	state.Log = append([]*api.HealthcheckResult{}, h.state.Log...)
	return &state
}

// startHealth begins to probe a container that has started and has a check.
func (m *Manager) startHealth(c *Container) {
	rec := c.copy()
	check := rec.Config.Healthcheck
	if check == nil || len(check.Test) < 2 && (len(check.Test) == 0 || check.Test[0] != "CMD-SHELL") || check.Test[0] == "NONE" {
		return
	}
	m.stopHealth(c)
	ctx, cancel := context.WithCancel(m.ctx)
	h := &health{cancel: cancel, state: api.Health{Status: api.Starting, Log: []*api.HealthcheckResult{}}}
	c.mu.Lock()
	c.health = h
	c.mu.Unlock()
	go m.probeLoop(ctx, c, h, check)
}

// stopHealth ends the probing; the last state stays to be looked at.
func (m *Manager) stopHealth(c *Container) {
	c.mu.Lock()
	h := c.health
	c.mu.Unlock()
	if h == nil {
		return
	}
	h.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state.Status == api.Starting {
		h.state.Status = api.Unhealthy
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func (m *Manager) probeLoop(ctx context.Context, c *Container, h *health, check *dockerspec.HealthcheckConfig) {
	started := time.Now()
	for {
		h.mu.Lock()
		starting := h.state.Status == api.Starting
		h.mu.Unlock()
		interval := orDefault(check.Interval, probeInterval)
		if starting && check.StartPeriod > 0 && time.Since(started) < check.StartPeriod {
			interval = orDefault(check.StartInterval, probeStartInterval)
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if c.copy().State.Status != api.StateRunning {
			continue // paused
		}
		result := m.probe(ctx, c, check)
		if ctx.Err() != nil {
			return
		}
		m.noteProbe(c, h, check, result, started)
	}
}

// noteProbe counts failures and tells when the health changes. Failures in the
// start period do not count until a first success.
func (m *Manager) noteProbe(c *Container, h *health, check *dockerspec.HealthcheckConfig, r *api.HealthcheckResult, started time.Time) {
	h.mu.Lock()
	before := h.state.Status
	h.state.Log = append(h.state.Log, r)
	if extra := len(h.state.Log) - probesKept; extra > 0 {
		h.state.Log = h.state.Log[extra:]
	}
	if r.ExitCode == 0 {
		h.state.FailingStreak = 0
		h.state.Status = api.Healthy
	} else if before != api.Starting || check.StartPeriod == 0 || r.Start.Sub(started) >= check.StartPeriod {
		h.state.FailingStreak++
		retries := check.Retries
		if retries == 0 {
			retries = probeRetries
		}
		if h.state.FailingStreak >= retries {
			h.state.Status = api.Unhealthy
		}
	}
	after := h.state.Status
	h.mu.Unlock()
	if before != after {
		m.publish(c, events.ActionHealthStatus+events.Action(": "+string(after)))
	}
}

// probe runs the check once in the container.
func (m *Manager) probe(ctx context.Context, c *Container, check *dockerspec.HealthcheckConfig) *api.HealthcheckResult {
	result := &api.HealthcheckResult{Start: time.Now()}
	code, output, err := m.runProbe(ctx, c, probeCommand(c, check), orDefault(check.Timeout, probeTimeout))
	result.End = time.Now()
	result.ExitCode, result.Output = code, output
	if err != nil {
		result.ExitCode, result.Output = -1, err.Error()
	}
	return result
}

func probeCommand(c *Container, check *dockerspec.HealthcheckConfig) []string {
	if check.Test[0] != "CMD-SHELL" {
		return check.Test[1:]
	}
	shell := c.copy().Config.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append([]string{}, shell...), check.Test[1:]...)
}

func (m *Manager) runProbe(ctx context.Context, c *Container, argv []string, timeout time.Duration) (int, string, error) {
	rec := c.copy()
	id, err := newID()
	if err != nil {
		return 0, "", err
	}
	process, err := m.execProcess(ctx, &rec, &api.ExecCreateRequest{Cmd: argv})
	if err != nil {
		return 0, "", err
	}
	encoded, err := json.Marshal(process)
	if err != nil {
		return 0, "", err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return 0, "", err
	}
	defer ours.Close()
	ended := m.expectProbe(id)
	defer m.dropProbe(id)
	_, err = m.opts.Shim.Exec(ctx, &shim.ExecRequest{
		ID: rec.ID, ExecID: id, Process: encoded, Attach: &shim.AttachRequest{Stdout: true, Stderr: true},
	}, theirs)
	theirs.Close()
	if err != nil {
		return 0, "", err
	}
	var output bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&output, io.LimitReader(ours, probeOutputLimit))
		io.Copy(io.Discard, ours)
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case code := <-ended:
		ours.SetReadDeadline(time.Now().Add(time.Second))
		<-read
		text := output.String()
		if output.Len() == probeOutputLimit {
			text += "..."
		}
		return code, text, nil
	case <-timer.C:
		m.opts.Shim.Signal(ctx, rec.ID, id, syscall.SIGKILL, false)
		return 0, "", &probeTimedOut{timeout}
	case <-ctx.Done():
		m.opts.Shim.Signal(context.WithoutCancel(ctx), rec.ID, id, syscall.SIGKILL, false)
		return 0, "", ctx.Err()
	}
}

type probeTimedOut struct{ after time.Duration }

func (e *probeTimedOut) Error() string {
	return "Health check exceeded timeout (" + e.after.String() + ")"
}
func (e *probeTimedOut) Unwrap() error { return os.ErrDeadlineExceeded }

func (m *Manager) expectProbe(id string) <-chan int {
	ch := make(chan int, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.probes[id] = ch
	return ch
}

func (m *Manager) dropProbe(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.probes, id)
}

func (m *Manager) notifyProbe(s *shim.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ch, ok := m.probes[s.ExecID]; ok {
		ch <- s.ExitCode
		delete(m.probes, s.ExecID)
	}
}
