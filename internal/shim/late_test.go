package shim

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client that means a run which has ended by the time its socket comes is let
// go. Without that it waited for the next run, which may never be.
func TestAttachToAnEndedRun(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("echo first")
	first := s.start(r)
	s.await(EventExit, r.ID, "")
	s.attach(&AttachRequest{ID: r.ID, Stdout: true, Run: first.StartedAt}).ended()
	next := s.attach(&AttachRequest{ID: r.ID, Stdout: true})
	r.Spec = mustJSON(s.spec("sh", "-c", "echo second; sleep 1000"))
	again := s.start(r)
	next.expect("second\n")
	s.attach(&AttachRequest{ID: r.ID, Stdout: true, Run: first.StartedAt}).ended()
	s.Signal(t.Context(), r.ID, "", syscall.SIGKILL, false)
	next.ended()
	s.await(EventExit, r.ID, "")
	if err := s.Forget(t.Context(), r.ID, ""); err != nil {
		t.Fatal(err)
	}
	s.attach(&AttachRequest{ID: r.ID, Stdout: true, Run: again.StartedAt}).ended()
	// At any moment of the end.
	for i := range 10 * rounds(t) {
		r := s.request(fmt.Sprintf("usleep %d", 300*(i%10)))
		reply := s.start(r)
		s.attach(&AttachRequest{ID: r.ID, Stdout: true, Run: reply.StartedAt}).ended()
		s.await(EventExit, r.ID, "")
	}
}

// mortalDaemon attaches the socket that is its third descriptor to a container
// that is never started, and waits to be killed.
func mortalDaemon(execRoot string) int {
	fail := func(err error) int {
		fmt.Println(err)
		return 1
	}
	c, err := Dial(context.Background(), execRoot)
	if err != nil {
		return fail(err)
	}
	events, err := c.Events(context.Background())
	if err != nil {
		return fail(err)
	}
	socket := os.NewFile(3, "client")
	if err := c.Attach(context.Background(), &AttachRequest{ID: "unborn", Stdout: true}, socket); err != nil {
		return fail(err)
	}
	socket.Close()
	fmt.Println("attached")
	for range events {
	}
	return 1
}

// The client of a container that its daemon did not live to start is let go when
// the daemon dies, not when there is the next one. Those of others stay.
func TestPendingClientOfDeadDaemon(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("echo mine")
	mine := s.attach(&AttachRequest{ID: r.ID, Stdout: true})
	for round := range rounds(t) {
		client, theirs := s.pair(false)
		cmd := exec.Command(s.binary, "daemon", s.root)
		cmd.ExtraFiles = []*os.File{theirs}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		said := make([]byte, 9)
		if n, err := io.ReadFull(out, said); err != nil || string(said) != "attached\n" {
			rest, _ := io.ReadAll(out)
			t.Fatalf("%s%s, %v", said[:n], rest, err)
		}
		if round%2 == 1 { // also a shim that has not accepted it itself
			if err := s.Upgrade(t.Context(), s.copyBinary(round)); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		client.ended()
		cmd.Wait()
	}
	s.start(r)
	if mine.ended(); mine.text() != "mine\n" {
		t.Errorf("the client of a living daemon saw %q", mine.text())
	}
	s.await(EventExit, r.ID, "")
}

// Who does not read at all may hold a container up for ten minutes, and not for
// ever: then the container goes on, and its log has everything.
func TestStalledClientIsCutOff(t *testing.T) {
	s := newTest(t)
	s.follow()
	if err := os.WriteFile(filepath.Join(s.root, stallFile), []byte("300ms"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Upgrade(t.Context(), s.copyBinary(0)); err != nil {
		t.Fatal(err)
	}
	r := s.request("seq 1 200000; exit 3")
	c := s.slow(&AttachRequest{ID: r.ID, Stdout: true, AttachID: "slow"})
	s.start(r)
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 3 {
		t.Errorf("%+v", e)
	}
	if n := len(s.lines(r)); n != 200000 {
		t.Errorf("the log has %d lines", n)
	}
	got, err := io.ReadAll(c)
	if err != nil || len(got) == 0 || len(got) > 1_000_000 {
		t.Errorf("the client got %d bytes, %v", len(got), err)
	}
}

// Whoever takes a byte now and then is slow and not stalled.
func TestSlowIsNotStalled(t *testing.T) {
	defer func(d time.Duration) { stallLimit = d }(stallLimit)
	stallLimit = 2 * time.Second
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
	reader := os.NewFile(uintptr(fds[1]), "reader")
	defer reader.Close()
	c, err := newClient(&AttachRequest{Stdout: true}, os.NewFile(uintptr(fds[0]), "client"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 10
	sent := make(chan bool, 1)
	go func() {
		ok := c.output(1, make([]byte, size))
		if !ok {
			c.drop()
		}
		sent <- ok
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, size/16)
	for n := 0; n < size; <-tick.C {
		m, err := reader.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		n += m
	}
	if !<-sent {
		t.Error("a client that read all the time was cut off")
	}
	c.drop()
}

// What send says has failed has not arrived: a request that did is not to be
// sent again. The other side may be gone as soon as it has read the frame.
func TestSendKnowsWhatArrived(t *testing.T) {
	for range 200 * rounds(t) {
		ours, theirs := connPair(t)
		arrived := make(chan error, 1)
		go func() {
			_, err := receive(theirs)
			theirs.Close()
			arrived <- err
		}()
		err := send(ours, request{Op: "start"}, make([]byte, 1000))
		if got := <-arrived; got == nil && err != nil {
			t.Fatalf("what has arrived could not be sent: %v", err)
		}
		ours.Close()
	}
}

func connPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		out[i] = c.(*net.UnixConn)
	}
	return out[0], out[1]
}
