package container

import (
	"context"
	"net"
	"os"
	"slices"
	"time"

	"github.com/gantry-containers/gantry/internal/shim"
)

// early is a client that was told that it is attached to a container which does
// not run. Who attaches first usually starts the container right afterwards: for
// a moment the client is kept here, so that its socket goes to the shim together
// with the start and the shim is asked once instead of twice.
type early struct {
	request *shim.AttachRequest
	conn    net.Conn
	file    *os.File      // of the same socket, for the shim
	taken   chan struct{} // closed when a start has it, which closes the rest
}

// patience is how long a client is kept before the shim gets it by itself.
const patience = 100 * time.Millisecond

func (e *early) close() {
	e.file.Close()
	e.conn.Close()
}

// await makes a client wait for the start. It is nil, and the connection still the
// caller's, when the connection is not a plain socket, enough are waiting, or a
// start has left without them: what the process says from now on must not be
// missed. The caller holds attaching.
func (c *Container) await(request *shim.AttachRequest, conn net.Conn) *early {
	filer, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.starting || c.rec.running() || len(c.early) >= shim.MaxAttach {
		return nil
	}
	file, err := filer.File()
	if err != nil {
		return nil
	}
	e := &early{request: request, conn: conn, file: file, taken: make(chan struct{})}
	c.early = append(c.early, e)
	return e
}

// takeEarly returns the clients that come with a start, which are the caller's to
// close then. Who comes after them is not kept until the start calls admitEarly.
func (c *Container) takeEarly() []*early {
	c.attaching.Lock() // who is on the way has arrived
	defer c.attaching.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.starting = true
	list := c.early
	c.early = nil
	for _, e := range list {
		close(e.taken)
	}
	return list
}

// admitEarly says that a start is over, whatever came of it.
func (c *Container) admitEarly() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.starting = false
}

// leave takes a client back, unless a start has it.
func (c *Container) leave(e *early) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.early, e)
	if i >= 0 {
		c.early = slices.Delete(c.early, i, i+1)
	}
	return i >= 0
}

// see waits until a start takes the client, or gives it to the shim, where it waits
// as long as it likes.
func (m *Manager) see(ctx context.Context, c *Container, e *early) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-e.taken:
		return nil
	case <-timer.C:
	}
	c.attaching.RLock()
	defer c.attaching.RUnlock()
	if !c.leave(e) {
		return nil
	}
	defer e.close()
	return m.opts.Shim.Attach(ctx, e.request, e.file)
}
