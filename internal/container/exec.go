package container

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/shim"
)

// finishedExecs is how many ended execs of a container can still be inspected.
const finishedExecs = 64

// execution is one exec in a container.
type execution struct {
	id        string
	container *Container
	request   api.ExecCreateRequest
	ready     chan struct{} // closed when the shim has been told to start it, or it failed

	mu       sync.Mutex // guards what follows; locked after the container's, never before it
	started  bool
	running  bool
	pid      int
	exitCode *int
	order    int // of its end
}

// ExecCreate prepares a command to be run in a running container.
func (m *Manager) ExecCreate(ctx context.Context, ref string, r *api.ExecCreateRequest) (string, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return "", err
	}
	if err := execPossible(c); err != nil {
		return "", err
	}
	if len(r.Cmd) == 0 {
		return "", errs.InvalidArgument("No exec command specified")
	}
	if _, err := parseDetachKeys(r.DetachKeys); err != nil {
		return "", err
	}
	for _, v := range r.Env {
		if name, _, _ := strings.Cut(v, "="); name == "" {
			return "", errs.InvalidArgument("invalid environment variable: %s", v)
		}
	}
	id, err := newID()
	if err != nil {
		return "", err
	}
	e := &execution{id: id, container: c, request: *r, ready: make(chan struct{})}
	c.mu.Lock()
	if c.execs == nil {
		c.execs = map[string]*execution{}
	}
	c.execs[id] = e
	c.mu.Unlock()
	m.mu.Lock()
	m.execs[id] = e
	m.mu.Unlock()
	m.publish(c, events.ActionExecCreate+events.Action(": "+r.Cmd[0]+" "+strings.Join(r.Cmd[1:], " ")), "execID", id)
	return id, nil
}

func execPossible(c *Container) error {
	rec := c.copy()
	switch rec.State.Status {
	case api.StateRunning:
		return nil
	case api.StatePaused:
		return errs.Conflict("container %s is paused, unpause the container before exec", rec.ID)
	case api.StateRestarting:
		return errs.Conflict("container %s is restarting, wait until the container is running", rec.ID)
	}
	return errs.Conflict("container %s is not running", rec.ID)
}

func (m *Manager) exec(id string) (*execution, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.execs[id]; ok {
		return e, nil
	}
	return nil, errs.NotFound("No such exec instance: %s", id)
}

// ExecStart runs the prepared command, once. Unless it is detached the
// connection is taken over, and ExecStart returns when the streams have been
// handed on; they end with the process.
func (m *Manager) ExecStart(ctx context.Context, id string, o ExecStartOptions, hijack Hijack) error {
	e, err := m.exec(id)
	if err != nil {
		return err
	}
	if err := execPossible(e.container); err != nil {
		return err
	}
	e.mu.Lock()
	if e.started {
		ended := e.exitCode != nil
		e.mu.Unlock()
		if ended {
			return errs.Conflict("exec command %s has already run", id)
		}
		return errs.Conflict("exec command %s is already running", id)
	}
	e.started, e.running = true, true
	e.mu.Unlock()
	defer close(e.ready)
	if err := m.execStart(context.WithoutCancel(ctx), e, o, hijack); err != nil {
		code, sentence := startExitCode(err)
		if code == 128 {
			code, sentence = 126, err
		}
		e.end(code, m.execOrder())
		return sentence
	}
	return nil
}

func (m *Manager) execStart(ctx context.Context, e *execution, o ExecStartOptions, hijack Hijack) error {
	rec := e.container.copy()
	process, err := m.execProcess(ctx, &rec, &e.request)
	if err != nil {
		return err
	}
	if size := firstSize(o.ConsoleSize, e.request.ConsoleSize); size != nil && e.request.Tty {
		process.ConsoleSize = boxOf(*size)
	}
	encoded, err := json.Marshal(process)
	if err != nil {
		return err
	}
	request := &shim.ExecRequest{
		ID:        rec.ID,
		ExecID:    e.id,
		Process:   encoded,
		Terminal:  e.request.Tty,
		OpenStdin: e.request.AttachStdin && !o.Detach,
		Detach:    o.Detach,
	}
	m.publish(e.container, events.ActionExecStart+events.Action(": "+e.request.Cmd[0]+" "+strings.Join(e.request.Cmd[1:], " ")), "execID", e.id)
	pid := 0
	if o.Detach {
		pid, err = m.opts.Shim.Exec(ctx, request, nil)
	} else {
		pid, err = m.execAttached(ctx, e, request, hijack)
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	if e.running { // it may have ended already
		e.pid = pid
	}
	e.mu.Unlock()
	return nil
}

// execAttached has the shim start an exec together with its client, so that no
// byte is missed and neither ever waits for the other. The client is told of a
// failure on its stream.
func (m *Manager) execAttached(ctx context.Context, e *execution, request *shim.ExecRequest, hijack Hijack) (pid int, err error) {
	keys, err := parseDetachKeys(e.request.DetachKeys)
	if err != nil {
		return 0, err
	}
	conn, unread, err := hijack(e.request.Tty)
	if err != nil {
		return 0, err
	}
	request.Attach = &shim.AttachRequest{
		Stdin:      e.request.AttachStdin,
		Stdout:     e.request.AttachStdout,
		Stderr:     e.request.AttachStderr,
		Multiplex:  !e.request.Tty,
		DetachKeys: keys,
		Unread:     unread,
	}
	err = handOver(conn, func(file *os.File) (err error) {
		pid, err = m.opts.Shim.Exec(ctx, request, file)
		return err
	})
	if err != nil {
		// On stdout, where Docker's clients look for it.
		writeFrame(conn, e.request.Tty, 1, []byte(err.Error()+"\r\n"))
		conn.Close()
		return 0, &streamedError{err}
	}
	return pid, nil
}

// streamedError came up when the connection was no longer the HTTP server's.
type streamedError struct{ error }

func (e *streamedError) Unwrap() error { return e.error }

func streamed(err error) error {
	if err == nil {
		return nil
	}
	return &streamedError{err}
}

func firstSize(sizes ...*[2]uint) *[2]uint {
	for _, s := range sizes {
		if s != nil && (s[0] != 0 || s[1] != 0) {
			return s
		}
	}
	return nil
}

func (e *execution) end(code, order int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exitCode == nil {
		e.running, e.pid, e.exitCode, e.order = false, 0, &code, order
	}
}

func (m *Manager) execOrder() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.execCount++
	return m.execCount
}

// execExited records the end of an exec.
func (m *Manager) execExited(ctx context.Context, c *Container, s *shim.Status) {
	if e, err := m.exec(s.ExecID); err == nil {
		e.end(s.ExitCode, m.execOrder())
		m.publish(c, events.ActionExecDie, "execID", e.id, "exitCode", strconv.Itoa(s.ExitCode))
		m.pruneExecs(c)
	}
	m.notifyProbe(s)
	m.opts.Shim.Forget(ctx, s.ID, s.ExecID)
}

// pruneExecs forgets the execs that ended first when there are many.
func (m *Manager) pruneExecs(c *Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var oldest *execution
		ended := 0
		for _, e := range c.execs {
			e.mu.Lock()
			if e.exitCode != nil {
				ended++
				if oldest == nil || e.order < oldest.order {
					oldest = e
				}
			}
			e.mu.Unlock()
		}
		if ended <= finishedExecs {
			return
		}
		delete(c.execs, oldest.id)
		m.mu.Lock()
		delete(m.execs, oldest.id)
		m.mu.Unlock()
	}
}

// endExecs marks the execs that were in the container when it ended; their
// processes were killed with it.
func (c *Container) endExecs() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.execs {
		e.mu.Lock()
		running := e.running
		e.mu.Unlock()
		if running {
			e.end(137, 0)
		}
	}
}

func (c *Container) forgetExecs(m *Manager) {
	c.mu.Lock()
	ids := make([]string, 0, len(c.execs))
	for id := range c.execs {
		ids = append(ids, id)
	}
	c.execs = nil
	c.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.execs, id)
	}
}

// execIDs lists the execs that run, as inspect shows them; nil when none does.
func (c *Container) execIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, e := range c.execs {
		e.mu.Lock()
		if e.running {
			ids = append(ids, id)
		}
		e.mu.Unlock()
	}
	return ids
}

// refreshExec asks the shim about an exec that seems to run. A client asks for
// the exit code as soon as its stream has ended, which may be before the event
// of the exit has come here.
func (m *Manager) refreshExec(ctx context.Context, e *execution) {
	e.mu.Lock()
	asks := e.running
	e.mu.Unlock()
	if !asks {
		return
	}
	statuses, err := m.opts.Shim.List(ctx)
	if err != nil {
		return
	}
	for _, s := range statuses {
		if s.ExecID == e.id && !s.Running {
			e.end(s.ExitCode, m.execOrder())
		}
	}
}

// ExecInspect tells about an exec, for a while also after its end.
func (m *Manager) ExecInspect(ctx context.Context, id string) (*api.ExecInspectResponse, error) {
	e, err := m.exec(id)
	if err != nil {
		return nil, err
	}
	m.refreshExec(ctx, e)
	containerID := e.container.copy().ID
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &e.request
	answer := &api.ExecInspectResponse{
		ID:       e.id,
		Running:  e.running,
		ExitCode: e.exitCode,
		ProcessConfig: &api.ExecProcessConfig{
			Tty: r.Tty, Entrypoint: r.Cmd[0], Arguments: orEmpty(r.Cmd[1:]), User: r.User, Privileged: &r.Privileged,
		},
		OpenStdin:   r.AttachStdin,
		OpenStdout:  r.AttachStdout,
		OpenStderr:  r.AttachStderr,
		ContainerID: containerID,
		Pid:         e.pid,
		CanRemove:   e.exitCode != nil,
	}
	if keys, err := parseDetachKeys(r.DetachKeys); err == nil && r.DetachKeys != "" {
		answer.DetachKeys = keys
	}
	return answer, nil
}

// resizePatience is how long a change of size waits for an exec to start.
const resizePatience = 10 * time.Second

// ExecResize sets the size of the terminal of a running exec, in characters. A
// client asks for it as soon as its stream is open, when the command may not run
// yet.
func (m *Manager) ExecResize(ctx context.Context, id string, height, width uint) error {
	e, err := m.exec(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, resizePatience)
	defer cancel()
	select {
	case <-e.ready:
	case <-ctx.Done():
		return errs.Conflict("exec command %s is not running", id)
	}
	return m.opts.Shim.Resize(ctx, e.container.copy().ID, id, height, width)
}
