package shim

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// Client talks to the io role of one exec root. It is safe for concurrent use
// and survives an upgrade of the shim. When the shim has died, the next call of a
// Client that Ensure has made starts another; of one that Dial has made it is
// errdefs.ErrUnavailable.
type Client struct {
	execRoot string
	binary   string // to start a shim with when there is none; "" never does

	mu   sync.Mutex // guards idle
	idle []*link
}

// link is a connection on which no request is under way.
type link struct {
	*net.UnixConn
	pid int32 // of io when it was made
}

const maxIdle = 8

// SocketPath is where the io role of an exec root listens.
func SocketPath(execRoot string) string { return filepath.Join(execRoot, "shim.sock") }

// Dial connects to the shim of execRoot, which must be running:
// errdefs.ErrUnavailable.
func Dial(ctx context.Context, execRoot string) (*Client, error) {
	c := &Client{execRoot: execRoot}
	l, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.release(l)
	return c, nil
}

func (c *Client) dial(ctx context.Context) (*link, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", SocketPath(c.execRoot))
	if err != nil && c.binary != "" && ctx.Err() == nil {
		if err := start(ctx, c.execRoot, c.binary); err != nil {
			return nil, err
		}
		conn, err = d.DialContext(ctx, "unix", SocketPath(c.execRoot))
	}
	if err != nil {
		return nil, errs.Unavailable("cannot reach the shim: %w", err)
	}
	l := &link{UnixConn: conn.(*net.UnixConn)}
	cred, err := peer(l.UnixConn)
	if err != nil {
		conn.Close()
		return nil, errs.Unavailable("cannot reach the shim: %w", err)
	}
	l.pid = cred.Pid
	return l, nil
}

// Close closes the idle connections. Calls under way are not disturbed.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.idle {
		l.Close()
	}
	c.idle = nil
	return nil
}

// connect returns an idle connection or, unless reuse, one that is new for certain:
// of one that was made before another broke it is not known who is at its end.
func (c *Client) connect(ctx context.Context, reuse bool) (*link, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 && reuse {
		l := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return l, nil
	}
	c.mu.Unlock()
	return c.dial(ctx)
}

func (c *Client) release(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= maxIdle {
		l.Close()
		return
	}
	c.idle = append(c.idle, l)
}

// answerLost is returned for what must not be done twice when the connection broke
// after it was sent and the same io seems to answer again, as one that was upgraded
// does. One that is dying may still be connected to: whoever asks again asks this
// process and no other.
type answerLost struct {
	error
	pid int32
}

func (e answerLost) Unwrap() error { return e.error }

// call sends one request and decodes its answer into out, if that is not nil.
//
// A connection that breaks without an answer is tried again: always when the
// same process answers afterwards, for then it was upgraded, and io answers
// everything it has begun before it is; otherwise only when repeat says that
// doing it twice does no harm.
func (c *Client) call(ctx context.Context, op string, body, out any, blob []byte, repeat bool, files ...*os.File) error {
	return c.callAt(ctx, 0, op, body, out, blob, repeat, files...)
}

// callAt is call to the io that is this process, or to any when pid is 0.
func (c *Client) callAt(ctx context.Context, pid int32, op string, body, out any, blob []byte, repeat bool, files ...*os.File) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var lost *link
	for try := 0; ; try++ {
		l, err := c.connect(ctx, lost == nil)
		if err != nil {
			return err
		}
		if pid != 0 && pid != l.pid || lost != nil && lost.pid != l.pid && !repeat {
			l.Close()
			return errs.Unavailable("the shim died while it was asked to %s", op)
		}
		if lost != nil && !repeat {
			l.Close()
			return answerLost{errs.Unavailable("the shim was upgraded while it was asked to %s", op), l.pid}
		}
		answer, sent, err := l.exchange(ctx, request{op, raw}, blob, files)
		if err == nil {
			if ctx.Err() == nil {
				c.release(l)
			} else {
				l.Close() // its deadline may be set any moment
			}
			defer answer.closeFDs()
			var r reply
			if err := json.Unmarshal(answer.json, &r); err != nil {
				return errs.System("cannot read the shim's answer: %w", err)
			}
			if r.Error != nil || out == nil {
				return r.Error.err()
			}
			return json.Unmarshal(r.Body, out)
		}
		l.Close()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if sent {
			lost = l
		}
		if try >= maxIdle+2 {
			return errs.Unavailable("the shim does not answer: %w", err)
		}
	}
}

// exchange sends a request and waits for its answer. sent says whether io may
// have received all of it.
func (l *link) exchange(ctx context.Context, r request, blob []byte, files []*os.File) (f *frame, sent bool, err error) {
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(past) })
	defer stop()
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, file := range files {
		if file == nil {
			continue
		}
		// Not File.Fd, which would make the caller's socket block.
		err := control(file, func(fd int) error {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
			if err == nil {
				fds = append(fds, dup)
			}
			return err
		})
		if err != nil {
			return nil, false, err
		}
	}
	if err := send(l.UnixConn, r, blob, fds...); err != nil {
		return nil, false, err
	}
	f, err = receive(l.UnixConn)
	return f, true, err
}

// Start starts a container, in netns when that is not nil, with the clients that
// r.Attach describes, whose sockets are conns; the caller may close its own copies
// of them. Once it has returned without error the shim has recorded the container.
// Errors of the start itself are *ocirt.StepError and *ocirt.ExecError; an ID that
// runs already is errdefs.ErrConflict.
func (c *Client) Start(ctx context.Context, r *StartRequest, netns *os.File, conns ...*os.File) (*StartReply, error) {
	if len(conns) != len(r.Attach) || len(conns) > MaxAttach {
		return nil, errs.InvalidArgument("a start with %d clients cannot have %d sockets", len(r.Attach), len(conns))
	}
	var out StartReply
	files := append(slices.Clip(conns), netns)
	request := *r
	request.SeccompSize = len(r.Seccomp)
	blob, began := slices.Concat(r.Spec, r.Seccomp), time.Now()
	err := c.call(ctx, "start", &request, &out, blob, false, files...)
	if lost := (answerLost{}); errors.As(err, &lost) {
		// An upgrade came between. It waits for what has begun, so that the
		// process is there now or was never asked for.
		s, found, lerr := c.find(ctx, r.ID, "")
		if lerr != nil {
			return nil, lerr
		}
		if found && !s.StartedAt.Before(began) {
			return &StartReply{Pid: s.Pid, StartedAt: s.StartedAt, StartTime: s.StartTime}, nil
		}
		err = c.callAt(ctx, lost.pid, "start", &request, &out, blob, false, files...)
	}
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// find looks for one process among all the shim knows.
func (c *Client) find(ctx context.Context, id, execID string) (s Status, found bool, err error) {
	list, err := c.List(ctx)
	i := slices.IndexFunc(list, func(s Status) bool { return s.ID == id && s.ExecID == execID })
	if err != nil || i < 0 {
		return Status{}, false, err
	}
	return list[i], true, nil
}

// Exec starts a further process in a running container. conn is the socket of
// the client that r.Attach describes, nil without one; as with Attach the caller
// may close its own copy, and after a failure the shim's is closed without a
// shutdown.
func (c *Client) Exec(ctx context.Context, r *ExecRequest, conn *os.File) (pid int, err error) {
	err = c.call(ctx, "exec", r, &pid, r.Process, false, conn)
	if lost := (answerLost{}); errors.As(err, &lost) {
		s, found, lerr := c.find(ctx, r.ID, r.ExecID)
		if lerr != nil || found {
			return s.Pid, lerr
		}
		err = c.callAt(ctx, lost.pid, "exec", r, &pid, r.Process, false, conn)
	}
	return pid, err
}

// Attach hands a client's stream socket to the shim, which speaks Docker's raw
// or multiplexed stream on it from then on; the caller may close its own copy.
// A process that is not there yet is attached to when it is started. After a
// failed start the shim closes the socket without shutting it down.
//
// It returns when the client is registered. How the stream ended is told by an
// event, EventDetach, EventEnd or, of one that was left open, EventExit.
func (c *Client) Attach(ctx context.Context, r *AttachRequest, conn *os.File) error {
	return c.call(ctx, "attach", r, nil, nil, true, conn)
}

type target struct {
	ID     string
	ExecID string `json:",omitempty"`
}

type signalBody struct {
	target
	Signal syscall.Signal
	All    bool `json:",omitempty"`
}

// Signal sends sig to a process, or to everything in its container. A process
// that has ended is errdefs.ErrFailedPrecondition.
func (c *Client) Signal(ctx context.Context, id, execID string, sig syscall.Signal, all bool) error {
	return c.call(ctx, "signal", signalBody{target{id, execID}, sig, all}, nil, nil, true)
}

type resizeBody struct {
	target
	Height, Width uint
}

// Resize sets the size of a process's terminal, in characters.
func (c *Client) Resize(ctx context.Context, id, execID string, h, w uint) error {
	return c.call(ctx, "resize", resizeBody{target{id, execID}, h, w}, nil, nil, true)
}

// List returns every process the shim holds and every exit nobody has forgotten.
func (c *Client) List(ctx context.Context) (list []Status, err error) {
	return list, c.call(ctx, "list", nil, &list, nil, true)
}

// Forget drops a process that has ended. What is not there is forgotten already.
func (c *Client) Forget(ctx context.Context, id, execID string) error {
	return c.call(ctx, "forget", target{id, execID}, nil, nil, true)
}

// CloseStdin ends the input of a process.
func (c *Client) CloseStdin(ctx context.Context, id, execID string) error {
	return c.call(ctx, "closestdin", target{id, execID}, nil, nil, true)
}

// Pause freezes a container's processes.
func (c *Client) Pause(ctx context.Context, id string) error {
	return c.call(ctx, "pause", target{ID: id}, nil, nil, true)
}

// Resume undoes Pause.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.call(ctx, "resume", target{ID: id}, nil, nil, true)
}

type updateBody struct {
	target
	Resources *specs.LinuxResources
}

// Update changes the limits of a running container.
func (c *Client) Update(ctx context.Context, id string, r *specs.LinuxResources) error {
	return c.call(ctx, "update", updateBody{target{ID: id}, r}, nil, nil, true)
}

type portsBody struct {
	Owner string
	Ports []portproxy.Mapping
}

// SetPorts makes ports the whole of what owner publishes; nil ends it. A port
// that cannot be had is a *portproxy.BindError, and then nothing has changed.
func (c *Client) SetPorts(ctx context.Context, owner string, ports []portproxy.Mapping) error {
	return c.call(ctx, "ports", portsBody{owner, ports}, nil, nil, true)
}

type upgradeBody struct{ Binary string }

// Upgrade makes io execute binary in place of itself. It returns when the new
// binary has taken over; after an error the old one goes on.
func (c *Client) Upgrade(ctx context.Context, binary string) error {
	return c.call(ctx, "upgrade", upgradeBody{binary}, nil, nil, false)
}

// Info describes the running shim.
type Info struct {
	Pid, NetPid int
	Version     string // of the protocol and the state, see Version
	Binary      string // what /proc/PID/exe says
}

// Info asks the shim about itself.
func (c *Client) Info(ctx context.Context) (i Info, err error) {
	return i, c.call(ctx, "info", nil, &i, nil, true)
}

// Shutdown ends the shim, both roles. It is errdefs.ErrConflict while it holds a
// process that runs.
func (c *Client) Shutdown(ctx context.Context) error {
	c.Close()
	last := &Client{execRoot: c.execRoot} // which starts no other
	err := last.call(ctx, "shutdown", nil, nil, nil, true)
	last.Close()
	if isUnavailable(err) && ctx.Err() == nil {
		return nil // there is none any more
	}
	return err
}

// Events returns what happens, beginning with every exit that was not forgotten
// yet. The channel is closed when ctx is done or the shim is gone: subscribe
// again; the exits of the meantime come first.
func (c *Client) Events(ctx context.Context) (<-chan Event, error) {
	l, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := send(l.UnixConn, request{Op: "events"}, nil); err != nil {
		l.Close()
		return nil, errs.Unavailable("cannot reach the shim: %w", err)
	}
	out := make(chan Event)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		defer close(out)
		defer stop()
		defer l.Close()
		for {
			f, err := receive(l.UnixConn)
			if err != nil {
				return
			}
			var e Event
			if json.Unmarshal(f.json, &e) != nil {
				return
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}
