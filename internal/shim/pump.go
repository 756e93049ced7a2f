package shim

import (
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/logs"
)

// chunkSize is what a pipe holds.
const chunkSize = 64 << 10

// chunks are held only while data is on its way, never while waiting for it.
var chunks = sync.Pool{New: func() any {
	b := make([]byte, chunkSize)
	return &b
}}

// pump moves output from a pipe or terminal into the log and to the clients,
// until its end or the deadline that the end of the process sets.
func (t *task) pump(s logs.Stream, f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		more := false
		err := rc.Read(func(fd uintptr) bool {
			var wait bool
			more, wait = t.pumpOnce(s, int(fd))
			return !wait
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// What was written while the process lived is in the pipe by now.
			rc.Control(func(fd uintptr) {
				for more, wait := true, false; more && !wait; {
					more, wait = t.pumpOnce(s, int(fd))
				}
			})
			return
		}
		if err != nil || !more {
			return
		}
	}
}

// pumpOnce moves one chunk. more is false at the end, wait says that nothing is
// there yet.
func (t *task) pumpOnce(s logs.Stream, fd int) (more, wait bool) {
	t.h.gate.enter()
	defer t.h.gate.leave()
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	n, err := readFD(fd, *buf)
	if err == unix.EAGAIN {
		return true, true
	}
	if n <= 0 {
		return false, false // the end; of a terminal it is EIO
	}
	at, p := now(), (*buf)[:n]
	if t.log != nil {
		t.log.Write(s, at, p)
	}
	t.mu.Lock()
	clients := slices.Clone(t.clients)
	t.mu.Unlock()
	for _, c := range clients {
		if !c.output(s, p) {
			t.detach(c, EventEnd)
		}
	}
	return true, false
}

func readFD(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// drainTime is how long the end of a process waits for descriptors of its that
// others hold (a child that outlives it, when nothing kills it).
const drainTime = 100 * time.Millisecond

// drainPumps waits until the output of an ended process is read. A client that
// does not read may delay it by two seconds, as in Docker; the pumps go on then.
func (t *task) drainPumps() (drained <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		t.pumps.Wait()
		close(done)
	}()
	select {
	case <-done:
		return done
	case <-time.After(drainTime):
	}
	for _, f := range t.out {
		if f != nil {
			f.SetReadDeadline(past)
		}
	}
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
	return done
}
