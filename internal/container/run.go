package container

import (
	"context"
	"net"
	"os"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/shim"
)

// RunOptions say what a Run is to do with the container it has created.
type RunOptions struct {
	// Attach says which streams the client gets whom Created hands over.
	Attach AttachOptions
	// TellEnd asks for an Ending at the end of the stream, if TellsEnd. When anything
	// goes wrong the stream ends without.
	TellEnd bool
	// Created is called once, when the container exists and is not started yet.
	// The connection it returns, if any, is the manager's; the bytes that were
	// read from it and not consumed come with it. After an error the container
	// stays, and is not started.
	Created func(answer api.CreateResponse, tty bool) (conn net.Conn, unread []byte, err error)
}

// TellsEnd says whether the stream to a container is to end with an Ending. That of a
// terminal has no frames that it could be told from output by; and the input of a
// client that may still send, unread when its connection is closed, could cut off
// what is on the way to it.
func (r *RunOptions) TellsEnd(tty bool) bool { return r.TellEnd && !tty && !r.Attach.Stdin }

// firstRun is the first start of a container that Run has created, and what came
// of it. Its fields but begun are guarded by the container's mu.
type firstRun struct {
	begun  chan struct{}     // closed when the start is over, whatever came of it
	failed error             // why it could not be started
	ended  *api.WaitResponse // how the run ended, once it has
	line   *line             // to the client that is told so; nil without one
}

// Run creates a container, attaches a client to it and starts it: what Create,
// Attach and Start do, with their errors. Nothing comes between for others: they
// find the container being started.
func (m *Manager) Run(ctx context.Context, o *CreateOptions, r *RunOptions) (err error) {
	keys, err := parseDetachKeys(r.Attach.DetachKeys)
	if err != nil {
		return err
	}
	run := &firstRun{begun: make(chan struct{})}
	defer close(run.begun)
	var c *Container
	o.born = func(created *Container) {
		c = created
		c.run = run
		c.op.Lock()
	}
	answer, err := m.Create(ctx, o)
	if err != nil {
		return err
	}
	defer c.op.Unlock()
	rec := c.copy()
	conn, unread, err := r.Created(answer, rec.Config.Tty)
	if err != nil {
		c.notStarted(err)
		return err
	}
	if conn != nil {
		request := attachRequest(&rec, r.Attach, keys, unread)
		if r.TellsEnd(rec.Config.Tty) {
			request.LeaveOpen, request.AttachID = c.keepLine(conn), lineID
		}
		defer func() {
			if err != nil {
				c.sayFailure(err)
			}
		}()
		e, err := m.attachFirst(ctx, c, request, conn)
		if err != nil {
			c.notStarted(err)
			return err
		}
		defer func() {
			if e != nil && c.leave(e) {
				e.close() // the shim was not even asked
				c.freeLine()
			}
		}()
	}
	return m.start(ctx, c)
}

// attachFirst has a client come with the start that follows. It is with the shim
// already when what is returned is nil.
func (m *Manager) attachFirst(ctx context.Context, c *Container, request *shim.AttachRequest, conn net.Conn) (*early, error) {
	m.publish(c, events.ActionAttach)
	if e := c.await(request, conn); e != nil {
		return e, nil
	}
	err := handOver(conn, func(file *os.File) error { return m.opts.Shim.Attach(ctx, request, file) })
	if err != nil {
		conn.Close()
	}
	return nil, err
}

// notStarted notes why the container that Run has created could not be started.
func (c *Container) notStarted(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != nil && c.starts == 0 && c.run.failed == nil {
		c.run.failed = cause
	}
}

// WaitConditionFirstExit is a condition of ours: the end of a container's first
// run, whenever it is asked for. Of a container that removes itself it is the end
// of the container. When the start failed, so does the wait, with the same error,
// once nothing more comes of it.
const WaitConditionFirstExit api.WaitCondition = "first-exit"

// waitFirst is Wait for WaitConditionFirstExit. It returns when the start is over.
func (m *Manager) waitFirst(ctx context.Context, c *Container) (<-chan api.WaitResponse, error) {
	if c.run == nil {
		return c.waitKnown(ctx)
	}
	select {
	case <-c.run.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	failed := c.run.failed
	c.mu.Unlock()
	if failed != nil {
		return nil, failed
	}
	return c.wait(ctx, WaitConditionFirstExit), nil
}

// waitKnown is waitFirst for a container that another daemon, or another request,
// has created: what the record tells must do.
func (c *Container) waitKnown(ctx context.Context) (<-chan api.WaitResponse, error) {
	rec := c.copy()
	switch {
	case !rec.HasBeenStarted && rec.State.Error != "":
		return nil, errs.System("%s", rec.State.Error)
	case !rec.HasBeenStarted:
		return nil, errs.Conflict("container %s was created but never started", rec.Name)
	case rec.HostConfig.AutoRemove:
		return c.wait(ctx, api.WaitConditionRemoved), nil
	}
	return c.wait(ctx, api.WaitConditionNotRunning), nil
}
