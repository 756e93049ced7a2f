package shim

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// says writes to the connection of a client that was left open, as the daemon does.
func says(t *testing.T, st *stream, theirs *os.File) {
	t.Helper()
	if _, err := theirs.Write([]byte("\x01\x00\x00\x00\x00\x00\x00\x04last")); err != nil {
		t.Errorf("nothing can be said to the client: %v", err)
	}
	theirs.Close()
	st.ended()
	if text := st.text(); !strings.HasSuffix(text, "last") {
		t.Errorf("the client saw %q", text)
	}
}

// The connection of a client that is to be left open is, with all output in it, when
// the exit is told; also by an io that was upgraded meanwhile. Others end as ever.
func TestLeftOpen(t *testing.T) {
	s := newTest(t)
	s.follow()
	for _, upgraded := range []bool{false, true} {
		r := s.request("echo out; read x; seq 1 1000; exit 3")
		r.OpenStdin = true
		st, theirs := s.pair(true)
		other, conn := s.pair(true)
		r.Attach = []AttachRequest{{Stdout: true, Multiplex: true, LeaveOpen: true, AttachID: "open"}, {Stdin: true, Stdout: true, Multiplex: true, AttachID: "other"}}
		if _, err := s.Start(t.Context(), r, nil, theirs, conn); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		st.expect("out\n")
		if upgraded {
			if err := s.Upgrade(t.Context(), s.copyBinary(0)); err != nil {
				t.Fatal(err)
			}
		}
		other.typed("x\n")
		if e := s.await(EventExit, r.ID, ""); !e.LeftOpen || e.ExitCode != 3 {
			t.Errorf("the exit is %+v", e)
		}
		other.ended()
		says(t, st, theirs)
		if text := st.text(); text != other.text()+"last" || !strings.Contains(text, "\n1000\n") {
			t.Errorf("one client saw %q, the other %q", text, other.text())
		}
		if e := s.await(EventEnd, r.ID, ""); e.AttachID != "other" {
			t.Errorf("the end of the one that was left open is told: %+v", e)
		}
		// Who comes later must not take it that somebody left it something.
		s.follow()
		if e := s.await(EventExit, r.ID, ""); e.LeftOpen {
			t.Errorf("told again: %+v", e)
		}
		if err := s.Forget(t.Context(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// A client that does not read has its stream ended when it has: whatever is said in
// between, before it has got all output, could come into the middle of that.
func TestNotLeftOpenWhenHeldUp(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("head -c 100000 /bin/busybox; exit 4")
	c, theirs := s.ends()
	defer theirs.Close()
	// With that it takes less than it gets, and the pipe the rest.
	if err := unix.SetsockoptInt(int(theirs.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<15); err != nil {
		t.Fatal(err)
	}
	r.Attach = []AttachRequest{{Stdout: true, LeaveOpen: true}}
	if _, err := s.Start(t.Context(), r, nil, theirs); err != nil {
		t.Fatal(err)
	}
	if e := s.await(EventExit, r.ID, ""); e.LeftOpen || e.ExitCode != 4 {
		t.Errorf("the exit is %+v", e)
	}
	want, _ := os.ReadFile(filepath.Join(s.rootfs, "bin/busybox"))
	// It ends though it is still open here.
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want[:100000]) {
		t.Errorf("the client got %d bytes, %v", len(got), err)
	}
}

// A stream that ends before its process is ended, not left.
func TestNotLeftOpenWhenDetached(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("while [ ! -e /tmp/go ]; do usleep 5000; done")
	r.OpenStdin = true
	st, theirs := s.pair(true)
	defer theirs.Close()
	r.Attach = []AttachRequest{{Stdin: true, Stdout: true, Multiplex: true, LeaveOpen: true, AttachID: "x"}}
	if _, err := s.Start(t.Context(), r, nil, theirs); err != nil {
		t.Fatal(err)
	}
	st.CloseWrite()
	st.ended()
	if e := s.await(EventEnd, r.ID, ""); e.AttachID != "x" {
		t.Errorf("%+v", e)
	}
	if _, err := io.WriteString(theirs, "x"); err == nil {
		t.Error("it was left open")
	}
	os.WriteFile(filepath.Join(s.rootfs, "tmp/go"), nil, 0o600)
	if e := s.await(EventExit, r.ID, ""); e.LeftOpen {
		t.Errorf("%+v", e)
	}
}

// An io that was killed has left nothing: its successor cannot know what arrived.
func TestNotLeftOpenWhenIODies(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("while [ ! -e /tmp/go ]; do usleep 5000; done; echo out")
	st, theirs := s.pair(true)
	r.Attach = []AttachRequest{{Stdout: true, Multiplex: true, LeaveOpen: true}}
	if _, err := s.Start(t.Context(), r, nil, theirs); err != nil {
		t.Fatal(err)
	}
	s.kill(func(i Info) int { return i.Pid })
	var err error
	if s.Client, err = Ensure(t.Context(), s.root, s.binary); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(s.rootfs, "tmp/go"), nil, 0o600)
	if e := s.await(EventExit, r.ID, ""); e.LeftOpen {
		t.Errorf("%+v", e)
	}
	theirs.Close()
	st.ended()
}

// Nor is one whose output an upgrade interrupted, as long as that is not sent.
func TestNotLeftOpenWhenInterrupted(t *testing.T) {
	s := newTest(t)
	st, theirs := s.pair(false)
	c, err := newClient(&AttachRequest{Stdout: true, LeaveOpen: true}, theirs)
	if err != nil {
		t.Fatal(err)
	}
	c.unsent = []byte("out")
	if c.leaveOpen() {
		t.Error("it was left before it had all output")
	}
	c.mu.Lock()
	unsent := c.unsent
	c.unsent = nil
	if c.leaveOpen() {
		t.Error("it was left while it was written to")
	}
	c.unsent = unsent
	c.mu.Unlock()
	if c.flush(); !c.leaveOpen() {
		t.Error("it was not left")
	}
	st.ended()
	if st.text() != "out" {
		t.Errorf("it got %q", st.text())
	}
}
