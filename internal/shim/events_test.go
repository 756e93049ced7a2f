package shim

import (
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unixPair is a connection to a subscriber and its other end.
func unixPair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// Whoever learns of an exit tells of it: nobody else has to get a processor
// first. A subscriber that does not read is left to the goroutine that may wait.
func TestExitIsToldAtOnce(t *testing.T) {
	h := newHolder(t.TempDir(), slog.New(slog.DiscardHandler))
	ours, theirs := unixPair(t)
	s := newSubscriber(ours)
	h.watch[s] = struct{}{} // without deliver
	h.publishExit(newTask(h, key{"first", ""}), false)
	theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
	f, err := receive(theirs)
	if err != nil {
		t.Fatalf("the exit was not sent: %v", err)
	}
	if got := string(f.json); len(s.queue) != 0 || len(got) == 0 {
		t.Errorf("sent %s, and %d events wait", got, len(s.queue))
	}
	h.publishExit(newTask(h, key{"second", ""}), false) // sent, and not read
	h.publishExit(newTask(h, key{"third", ""}), false)
	if len(s.queue) != 1 || s.queue[0].ID != "third" {
		t.Errorf("%d events wait for a subscriber that does not read, want the last", len(s.queue))
	}
}
