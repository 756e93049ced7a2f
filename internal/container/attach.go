package container

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/shim"
)

// Attach connects a client to the streams of a container, which may not be
// started yet. The client's socket goes to the shim: from then on no byte
// passes through this process, and its end does not cut the client off.
func (m *Manager) Attach(ctx context.Context, ref string, o AttachOptions, hijack Hijack) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(o.DetachKeys)
	if err != nil {
		return err
	}
	rec := c.copy()
	switch rec.State.Status {
	case api.StatePaused:
		return errs.Conflict("container %s is paused, unpause the container before attach", ref)
	case api.StateRestarting:
		return errs.Conflict("container %s is restarting, wait until the container is running", ref)
	}
	arrived := func() {}
	if o.Stream && !o.Logs { // those go at the client's pace
		c.attaching.RLock()
		arrived = sync.OnceFunc(c.attaching.RUnlock)
	}
	defer arrived()
	conn, unread, err := hijack(rec.Config.Tty)
	if err != nil {
		return err
	}
	m.publish(c, events.ActionAttach)
	if o.Logs {
		if err := m.replay(ctx, &rec, o, conn); err != nil {
			conn.Close()
			return &streamedError{err}
		}
	}
	if !o.Stream {
		return conn.Close()
	}
	request := attachRequest(&rec, o, keys, unread)
	if rec.running() {
		// It may end before the shim has the socket. The client must not wait for
		// the next run then.
		request.Run = rec.State.StartedAt
	} else if !o.Logs {
		if e := c.await(request, conn); e != nil {
			arrived()
			return streamed(m.see(ctx, c, e))
		}
	}
	err = handOver(conn, func(file *os.File) error { return m.opts.Shim.Attach(ctx, request, file) })
	if err != nil {
		conn.Close()
	}
	return streamed(err)
}

func attachRequest(rec *Record, o AttachOptions, keys, unread []byte) *shim.AttachRequest {
	return &shim.AttachRequest{
		ID:         rec.ID,
		Stdin:      o.Stdin && rec.Config.OpenStdin,
		Stdout:     o.Stdout,
		Stderr:     o.Stderr,
		Multiplex:  !rec.Config.Tty,
		DetachKeys: keys,
		Unread:     unread,
	}
}

// writeFrame writes bytes as the raw stream of a terminal or as a frame of
// Docker's multiplexed stream.
func writeFrame(w io.Writer, tty bool, stream byte, b []byte) error {
	if !tty {
		n := len(b)
		header := [8]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		b = append(header[:], b...)
	}
	_, err := w.Write(b)
	return err
}

// handOver gives the client's socket to the shim, which give does. A connection
// that is not a plain socket, such as TLS or a WebSocket, is relayed over a socket
// pair. After an error of give conn is still the caller's.
func handOver(conn net.Conn, give func(*os.File) error) error {
	if filer, ok := conn.(interface{ File() (*os.File, error) }); ok {
		file, err := filer.File()
		if err != nil {
			return err
		}
		defer file.Close()
		if err := give(file); err != nil {
			return err
		}
		conn.Close()
		return nil
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	err = give(theirs)
	theirs.Close()
	if err != nil {
		ours.Close()
		return err
	}
	go relay(conn, ours)
	return nil
}

func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	mine := os.NewFile(uintptr(fds[0]), "relay")
	defer mine.Close()
	theirs = os.NewFile(uintptr(fds[1]), "attach")
	ours, err = net.FileConn(mine)
	if err != nil {
		theirs.Close()
	}
	return ours, theirs, err
}

// relay copies in both directions, passes a half-close on, and closes both
// connections when the container's side has ended.
func relay(client, shim net.Conn) {
	defer client.Close()
	defer shim.Close()
	go func() {
		io.Copy(shim, client)
		if half, ok := shim.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}()
	io.Copy(client, shim)
	if half, ok := client.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// replay writes what was logged before.
func (m *Manager) replay(ctx context.Context, rec *Record, o AttachOptions, w io.Writer) error {
	return m.readLogs(ctx, rec, logs.ReadOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1}, func(msg *logs.Message) error {
		stream := byte(1)
		if msg.Stream == "stderr" {
			stream = 2
		}
		return writeFrame(w, rec.Config.Tty, stream, msg.Line)
	})
}

// Resize sets the size of the container's terminal, in characters.
func (m *Manager) Resize(ctx context.Context, ref string, height, width uint) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	rec := c.copy()
	if !rec.running() {
		return errs.Conflict("container %s is not running", rec.ID)
	}
	if err := m.opts.Shim.Resize(ctx, rec.ID, "", height, width); err != nil {
		return err
	}
	m.publish(c, events.ActionResize, "height", strconv.Itoa(int(height)), "width", strconv.Itoa(int(width)))
	return nil
}

// ValidDetachKeys tells whether Attach takes these keys.
func ValidDetachKeys(s string) bool {
	_, err := parseDetachKeys(s)
	return err == nil
}

// parseDetachKeys reads "ctrl-p,ctrl-q" into the bytes a terminal sends. "" is
// the default sequence.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte{'p' & 0x1f, 'q' & 0x1f}, nil
	}
	var keys []byte
	for _, key := range strings.Split(s, ",") {
		if len(key) == 1 {
			keys = append(keys, key[0])
			continue
		}
		name, ok := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		if !ok || len(name) != 1 || !strings.Contains("@abcdefghijklmnopqrstuvwxyz[\\]^_", name) {
			return nil, errs.InvalidArgument("Invalid detach keys (%s) provided", s)
		}
		keys = append(keys, name[0]&0x1f)
	}
	return keys, nil
}

// Logs sends the log of the container line by line; with Follow until the
// container ends or the context does.
func (m *Manager) Logs(ctx context.Context, ref string, o LogsOptions, send func(*logs.Message) error) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	if !o.Stdout && !o.Stderr {
		return errs.InvalidArgument("You must choose at least one stream")
	}
	rec := c.copy()
	return m.readLogs(ctx, &rec, o.ReadOptions, send)
}

func (m *Manager) readLogs(ctx context.Context, rec *Record, o logs.ReadOptions, send func(*logs.Message) error) error {
	if rec.ResolvedLogDriver == "none" {
		return errs.NotImplemented("configured logging driver does not support reading")
	}
	ended := make(chan struct{})
	if !o.Follow || !rec.running() && rec.State.Status != api.StateRestarting && rec.State.Status != api.StateCreated {
		close(ended)
	} else {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		exit, err := m.Wait(ctx, rec.ID, api.WaitConditionNextExit)
		if err != nil {
			return err
		}
		go func() {
			select {
			case <-exit:
				close(ended)
			case <-ctx.Done():
			}
		}()
	}
	return logs.Read(ctx, m.logs(rec), o, ended, send)
}

// logAttributes are what --log-opt labels, env and tag add to each line. What is
// wrong with them was said when the container was created.
func logAttributes(rec *Record) map[string]string {
	opts := rec.ResolvedLogOpts
	attributes, err := logs.ExtraAttributes(opts, rec.Config.Labels, rec.Config.Env)
	if err != nil {
		attributes = map[string]string{}
	}
	if tag := opts["tag"]; tag != "" {
		if expanded, err := expandTag(tag, rec); err == nil {
			tag = expanded
		}
		attributes["tag"] = tag
	}
	if len(attributes) == 0 {
		return nil
	}
	return attributes
}
