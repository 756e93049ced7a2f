package shim

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
)

// stallLimit is how long an attached client may hold up the container by not
// reading: see the package's comment on slow clients.
var stallLimit = 10 * time.Minute // only tests change it

// client is one attached stream: the socket of whoever talks to the engine.
type client struct {
	r    AttachRequest // Unread is input that the process has not got yet
	conn *os.File
	keys detachKeys
	by   int // the process of the daemon that has attached it

	mu     sync.Mutex // held while writing, so that frames stay whole; guards everything below
	unsent []byte     // output that an upgrade interrupted
	dead   bool       // it does not take output any more

	watched   chan struct{} // closed when the watch over it while its process had not come has ended; nil without one
	unfed     []byte        // input, past the detach keys, that an upgrade interrupted; only its reader touches it
	inputDone bool          // its input has ended, or is nobody's; only its reader touches it
	once      sync.Once     // it ends once
	over      chan struct{}
}

func newClient(r *AttachRequest, conn *os.File) (*client, error) {
	if conn == nil {
		return nil, errs.InvalidArgument("an attach needs a socket")
	}
	c := &client{r: *r, over: make(chan struct{})}
	c.keys.sequence = detachSequence(r)
	if c.conn = pollable(conn); c.conn == nil {
		return nil, errs.System("cannot take over the client's socket")
	}
	return c, nil
}

func detachSequence(r *AttachRequest) []byte {
	if len(r.DetachKeys) == 0 {
		return []byte{16, 17} // ctrl-p ctrl-q
	}
	return r.DetachKeys
}

// output sends p, which came from stream s. It blocks while the client does not
// read; that is the backpressure of a pipe. It reports false when the client
// takes no more.
func (c *client) output(s logs.Stream, p []byte) bool {
	if s == logs.Stdout && !c.r.Stdout || s == logs.Stderr && !c.r.Stderr {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	var head [8]byte
	parts := [][]byte{c.unsent, nil, p}
	if c.r.Multiplex {
		head[0] = byte(s)
		binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
		parts[1] = head[:]
	}
	c.unsent = nil
	if err := c.write(parts); err != nil {
		c.dead = true
	}
	return !c.dead
}

// write sends all parts. An upgrade interrupts it, and the rest becomes unsent.
func (c *client) write(parts [][]byte) error {
	rc, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	var fail error
	waited, waits := false, false // ever, and without a byte taken since
	err = rc.Write(func(fd uintptr) bool {
		for {
			parts = trim(parts, 0)
			if len(parts) == 0 {
				return true
			}
			n, err := unix.SendmsgBuffers(int(fd), parts, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			switch err {
			case nil:
				parts, waits = trim(parts, n), false
			case unix.EINTR:
			case unix.EAGAIN:
				if !waits {
					waited, waits = true, true
					c.conn.SetWriteDeadline(time.Now().Add(stallLimit))
				}
				if upgrading.Load() {
					c.conn.SetWriteDeadline(past)
				}
				return false
			default:
				fail = err
				return true
			}
		}
	})
	if waited && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.conn.SetWriteDeadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && upgrading.Load() {
		for _, p := range parts {
			c.unsent = append(c.unsent, p...)
		}
		return nil
	}
	return errors.Join(err, fail)
}

// flush sends what an upgrade interrupted.
func (c *client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unsent) > 0 && !c.dead {
		parts := [][]byte{c.unsent}
		c.unsent = nil
		c.dead = c.write(parts) != nil
	}
}

// trim drops the first n bytes, and empty parts.
func trim(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n -= len(parts[0])
		parts = parts[1:]
	}
	if len(parts) > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

// drop lets the socket go as it is: somebody else has it too and goes on.
func (c *client) drop() {
	c.once.Do(func() {
		close(c.over)
		c.conn.Close()
	})
}

// leaveOpen lets the socket go with all output in it, for who has it too. It reports
// false when output is held up, or was lost: then the stream has to end.
func (c *client) leaveOpen() bool {
	if !c.mu.TryLock() {
		return false // what an upgrade interrupted is being sent
	}
	defer c.mu.Unlock()
	if c.dead || len(c.unsent) > 0 {
		return false
	}
	c.dead = true
	c.drop()
	return true
}

// finish ends the stream so that its last byte arrives: what the client still
// sends is read and thrown away, for closing a socket with unread input would
// reset it.
func (c *client) finish() {
	c.once.Do(func() {
		close(c.over)
		control(c.conn, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
		c.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		go func() {
			defer c.conn.Close()
			var waste [512]byte
			for {
				if n, err := c.conn.Read(waste[:]); n == 0 || err != nil {
					return
				}
			}
		}()
	})
}

// hungUp reports whether the peer has closed the connection in both directions.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
