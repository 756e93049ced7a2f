package container

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"syscall"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt"
)

// FrameEnding is the first byte of a frame of ours in Docker's multiplexed stream:
// the last one, whose content is an Ending: as JSON, or, when there is no error, the
// exit code alone, which to who has it needs no reading of JSON.
const FrameEnding = 'E'

// Ending is how the first run of a container ended: what the answer to a wait with
// WaitConditionFirstExit says.
type Ending struct {
	*api.WaitResponse        // nil when the start failed
	Failure           string `json:"message,omitempty"` // of the start, as errors of the API are written
}

// line is the connection of a client whose stream is the shim's business until it
// has left it open; then the client is told how the run ended. It is a descriptor
// and no more: nobody here wakes up for what happens on the connection meanwhile.
// When this process dies, so does the line, and the client asks the next one.
type line struct {
	fd   int
	free bool // the shim is done with it; guarded by the container's mu
}

// lineID is the AttachID of the client that has the line.
const lineID = "line"

// keepLine keeps the connection of the client that Run attaches, unless it is not a
// plain socket.
func (c *Container) keepLine(conn net.Conn) bool {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	l := &line{fd: -1}
	if rc.Control(func(fd uintptr) { l.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }) != nil || err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run.line = l
	return true
}

// freeLine notes that nobody else writes to the line any more.
func (c *Container) freeLine() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != nil && c.run.line != nil {
		c.run.line.free = true
	}
}

// sayFailure tells the client that the start has failed. Of an error in a step of it
// the shim is known to have let the client go before it answered.
func (c *Container) sayFailure(cause error) {
	var step *ocirt.StepError
	var exec *ocirt.ExecError
	if errors.As(cause, &step) || errors.As(cause, &exec) {
		c.freeLine()
	}
	c.takeLine().say(&Ending{Failure: cause.Error()})
}

// takeLine takes the line, which may be nil, away from the container.
func (c *Container) takeLine() *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takeLineLocked()
}

// takeLineLocked is called with mu held.
func (c *Container) takeLineLocked() *line {
	if c.run == nil {
		return nil
	}
	l := c.run.line
	c.run.line = nil
	return l
}

// say tells the client, if only the line is free, and closes it. It waits for
// nobody: a client that has not read what came before asks when it has.
func (l *line) say(e *Ending) {
	if l == nil {
		return
	}
	defer unix.Close(l.fd)
	if !l.free {
		return
	}
	text, err := e.text()
	if err != nil {
		return
	}
	frame := binary.BigEndian.AppendUint32([]byte{FrameEnding, 0, 0, 0}, uint32(len(text)))
	_ = unix.Sendto(l.fd, append(frame, text...), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
}

func (e *Ending) text() ([]byte, error) {
	if e.WaitResponse != nil && e.Error == nil {
		return strconv.AppendInt(nil, e.StatusCode, 10), nil
	}
	return json.Marshal(e)
}

// close lets the client go without a word.
func (l *line) close() {
	if l != nil {
		unix.Close(l.fd)
	}
}
