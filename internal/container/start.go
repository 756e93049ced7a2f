package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/trace"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/heap"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocispec"
	"github.com/gantry-containers/gantry/internal/shim"
)

// Start starts the container. A container that runs is errdefs.ErrNotModified;
// a command that cannot be executed is ErrInvalidArgument, and the container's
// exit code is then 127 (not found) or 126 (not executable).
func (m *Manager) Start(ctx context.Context, ref string) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	c.mu.Lock()
	c.rec.ManuallyStopped = false
	c.backoff = 0
	c.rec.RestartCount = 0
	c.mu.Unlock()
	return m.start(ctx, c)
}

// start is called with op held.
func (m *Manager) start(ctx context.Context, c *Container) error {
	rec := c.copy()
	switch rec.State.Status {
	case api.StateRunning:
		return errs.NotModified("container %s is already running", rec.Name)
	case api.StatePaused:
		return errs.Conflict("cannot start a paused container, try unpause instead")
	case api.StateRemoving, api.StateDead:
		return errs.Conflict("container is marked for removal and cannot be started")
	}
	c.cancelRetry()
	// The client may go away now; the container is started all the same.
	ctx = context.WithoutCancel(ctx)
	defer c.admitEarly()
	reply, sandbox, err := m.launch(ctx, c, &rec)
	if err != nil {
		return m.startFailed(ctx, c, err)
	}
	c.mu.Lock()
	c.starts++
	c.rec.HasBeenStarted = true
	c.rec.Network = nil
	if sandbox != nil {
		c.rec.Network = &sandbox.Network
		c.rec.NetworkIDs = map[string]string{}
		for name, ep := range sandbox.Endpoints {
			c.rec.NetworkIDs[name] = ep.NetworkID
		}
	}
	c.rec.State = State{Status: api.StateRunning, Pid: reply.Pid, StartTime: reply.StartTime, StartedAt: reply.StartedAt}
	c.mu.Unlock()
	if err := m.saveState(c); err != nil {
		m.opts.Log.Error("cannot record a started container", "container", rec.ID, "error", err)
	}
	m.publish(c, events.ActionStart)
	m.startHealth(c)
	heap.Used()
	return nil
}

// launch makes the network and the OCI spec, and has the shim fork.
func (m *Manager) launch(ctx context.Context, c *Container, rec *Record) (*shim.StartReply, *Sandbox, error) {
	defer trace.StartRegion(ctx, "container.launch").End()
	sandbox, err := m.connect(ctx, rec)
	if err != nil {
		return nil, nil, err
	}
	if sandbox != nil && sandbox.NetNS != nil {
		defer sandbox.NetNS.Close()
	}
	var h held
	defer h.close()
	request, err := m.startRequest(ctx, rec, sandbox, &h)
	if err != nil {
		return nil, sandbox, err
	}
	reply, err := m.shimStart(ctx, request, sandbox, c.takeEarly())
	return reply, sandbox, err
}

// shimStart has the shim fork, with the clients that are to come along.
func (m *Manager) shimStart(ctx context.Context, request *shim.StartRequest, sandbox *Sandbox, clients []*early) (*shim.StartReply, error) {
	defer trace.StartRegion(ctx, "shim.Start").End()
	conns := make([]*os.File, len(clients))
	for i, e := range clients {
		defer e.close()
		conns[i] = e.file
		request.Attach = append(request.Attach, *e.request)
	}
	var netns *os.File
	if sandbox != nil {
		netns = sandbox.NetNS
	}
	return m.opts.Shim.Start(ctx, request, netns, conns...)
}

// connect gives the container its network, unless it uses one that is there.
func (m *Manager) connect(ctx context.Context, rec *Record) (*Sandbox, error) {
	mode := rec.HostConfig.NetworkMode
	if mode.IsContainer() {
		return nil, nil
	}
	defer trace.StartRegion(ctx, "network.Connect").End()
	request := &NetworkRequest{
		ContainerID: rec.ID,
		Name:        rec.Name,
		Hostname:    rec.Config.Hostname,
		Mode:        mode,
		Exposed:     rec.Config.ExposedPorts,
		Bindings:    rec.HostConfig.PortBindings,
		PublishAll:  rec.HostConfig.PublishAllPorts,
		Endpoints:   rec.Endpoints,
	}
	if rec.Config.NetworkDisabled {
		request.Mode = "none"
	}
	return m.opts.Networks.Connect(ctx, request)
}

func (m *Manager) startRequest(ctx context.Context, rec *Record, sandbox *Sandbox, h *held) (*shim.StartRequest, error) {
	region := trace.StartRegion(ctx, "ocispec.Build")
	spec, err := m.spec(ctx, rec, sandbox, h)
	region.End()
	if err != nil {
		return nil, err
	}
	external, err := m.runtime(rec.HostConfig.Runtime)
	if err != nil {
		return nil, err // it was there when the container was created
	}
	var profile json.RawMessage
	if external == nil && spec.Linux.Seccomp != nil {
		if profile, err = ocispec.EncodeSeccomp(spec.Linux.Seccomp); err != nil {
			return nil, err
		}
		spec.Linux.Seccomp = nil
	}
	encoded, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	mounts, err := m.opts.Snapshots.Mounts(rec.ID)
	if err != nil {
		return nil, err
	}
	_, own := m.cgroupParent(rec)
	return &shim.StartRequest{
		ID:          rec.ID,
		Runtime:     external,
		Spec:        encoded,
		Seccomp:     profile,
		RootMounts:  mounts,
		Bundle:      m.dir(rec.ID),
		OwnParent:   own,
		Terminal:    rec.Config.Tty,
		OpenStdin:   rec.Config.OpenStdin,
		StdinOnce:   rec.Config.StdinOnce,
		ConsoleSize: rec.HostConfig.ConsoleSize,
		Log:         m.logs(rec),
		Ephemeral:   rec.HostConfig.AutoRemove,
	}, nil
}

func (m *Manager) logs(rec *Record) logs.Config {
	return logs.Config{
		Driver: rec.ResolvedLogDriver,
		Path:   m.logPath(rec),
		Opts:   rec.ResolvedLogOpts,
		Attrs:  logAttributes(rec),
	}
}

// startFailed leaves the container as Docker does: exited (or still created)
// with the reason, and removed when it was to be removed on exit.
func (m *Manager) startFailed(ctx context.Context, c *Container, cause error) error {
	rec := c.copy()
	code, cause := startExitCode(cause)
	if err := m.opts.Networks.Disconnect(ctx, rec.ID); err != nil {
		m.opts.Log.Error("cannot release the network of a container that did not start", "container", rec.ID, "error", err)
	}
	c.mu.Lock()
	c.rec.Network = nil
	c.rec.State.ExitCode = code
	c.rec.State.Error = cause.Error()
	if c.rec.State.Status == api.StateRestarting {
		c.rec.State.Status = api.StateExited
		c.rec.State.FinishedAt = time.Now().UTC()
	}
	if rec.HostConfig.AutoRemove {
		c.rec.State.Status = api.StateExited
	}
	c.mu.Unlock()
	c.notStarted(cause)
	if rec.State.Status == api.StateRestarting {
		c.wake(waitExit)
	}
	if rec.HostConfig.AutoRemove {
		if err := m.remove(ctx, c, RemoveOptions{Volumes: true}); err != nil {
			m.opts.Log.Error("cannot remove a container that did not start", "container", rec.ID, "error", err)
		}
		return cause
	}
	if err := m.saveState(c); err != nil {
		m.opts.Log.Error("cannot record a container that did not start", "container", rec.ID, "error", err)
	}
	return cause
}

// startExitCode is the exit code of a container whose command could not be
// executed, as shells number it, with the error in its class.
func startExitCode(err error) (int, error) {
	var exec *ocirt.ExecError
	switch {
	case !errors.As(err, &exec):
		return 128, fmt.Errorf("cannot start the container: %w", err)
	case errors.Is(exec, ocirt.ErrNotFound):
		return 127, errs.InvalidArgument("%w", err)
	}
	return 126, errs.InvalidArgument("%w", err)
}
