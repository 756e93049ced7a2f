package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ends are those of the connection of a client that does not read until told to.
func (s *shimTest) ends() (mine net.Conn, theirs *os.File) {
	s.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "mine")
	defer file.Close()
	if mine, err = net.FileConn(file); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { mine.Close() })
	return mine, os.NewFile(uintptr(fds[1]), "theirs")
}

// slow is such a client, attached.
func (s *shimTest) slow(r *AttachRequest) net.Conn {
	s.Helper()
	c, theirs := s.ends()
	if err := s.Attach(s.Context(), r, theirs); err != nil {
		s.Fatal(err)
	}
	theirs.Close()
	return c
}

// startWith starts a container with clients that come along.
func (s *shimTest) startWith(r *StartRequest, netns *os.File, clients ...AttachRequest) (list []*stream, err error) {
	s.Helper()
	r.Attach = clients
	conns := make([]*os.File, len(clients))
	for i := range clients {
		st, theirs := s.pair(clients[i].Multiplex)
		defer theirs.Close()
		list, conns[i] = append(list, st), theirs
	}
	_, err = s.Start(s.Context(), r, netns, conns...)
	return list, err
}

// As many clients as may come with a start see it from the first byte on, beside
// its network namespace; one of them types, and had typed before.
func TestClientsOfAStart(t *testing.T) {
	s := newTest(t)
	s.follow()
	netns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	spec := s.spec("sh", "-c", "echo first; cat")
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	r := s.request("")
	r.Spec, _ = json.Marshal(spec)
	r.OpenStdin, r.StdinOnce = true, true
	clients := make([]AttachRequest, MaxAttach)
	for i := range clients {
		clients[i] = AttachRequest{Stdout: true}
	}
	clients[MaxAttach/2].Stdin, clients[MaxAttach/2].Unread = true, []byte("early ")
	list, err := s.startWith(r, netns, clients...)
	if err != nil {
		t.Fatal(err)
	}
	list[MaxAttach/2].typed("hello\n")
	list[MaxAttach/2].CloseWrite()
	for _, st := range list {
		if st.ended(); st.text() != "first\nearly hello\n" {
			t.Fatalf("a client saw %q", st.text())
		}
	}
	s.await(EventExit, r.ID, "")

	if _, err := s.startWith(s.request("true"), nil, make([]AttachRequest, MaxAttach+1)...); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("too many clients: %v", err)
	}
}

// Who came with a start that failed is let go without a shutdown, as the daemon
// has something to tell: its stream ends with the daemon's own descriptor.
func TestClientsOfAFailedStart(t *testing.T) {
	s := newTest(t)
	r := s.request("")
	r.Spec, _ = json.Marshal(s.spec("/none"))
	r.Attach = []AttachRequest{{Stdout: true}}
	st, theirs := s.pair(false)
	if _, err := s.Start(t.Context(), r, nil, theirs); err == nil {
		t.Fatal("it started")
	}
	if _, err := io.WriteString(theirs, "why"); err != nil {
		t.Errorf("the daemon can tell nothing any more: %v", err)
	}
	theirs.Close()
	if st.ended(); st.text() != "why" {
		t.Errorf("the client saw %q", st.text())
	}
}

// A client that reads slowly gets every byte, also when the shim is upgraded
// while it makes the container wait; so does a container that reads slowly.
func TestSlowClientLosesNothing(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("seq 1 300000")
	c := s.slow(&AttachRequest{ID: r.ID, Stdout: true})
	s.start(r)
	in := s.request("while [ ! -e /tmp/go ]; do usleep 5000; done; cat >/tmp/in; echo done")
	in.OpenStdin, in.StdinOnce = true, true
	feeder := s.attach(&AttachRequest{ID: in.ID, Stdin: true, Stdout: true})
	s.start(in)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := feeder.Write(data); err != nil {
			t.Error(err)
		}
		feeder.CloseWrite()
	})
	for i := range 3 {
		if err := s.Upgrade(t.Context(), s.copyBinary(i)); err != nil {
			t.Fatal(err)
		}
	}
	if list, _ := s.List(t.Context()); len(list) != 2 || !list[0].Running || !list[1].Running {
		t.Errorf("nothing held the containers up: %+v", list)
	}
	os.WriteFile(s.rootfs+"/tmp/go", nil, 0o600)
	var want strings.Builder
	for i := 1; i <= 300000; i++ {
		fmt.Fprintln(&want, i)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != want.String() {
		t.Errorf("%d bytes of %d arrived (%v)", len(got), want.Len(), err)
	}
	s.await(EventExit, r.ID, "")
	wg.Wait()
	feeder.expect("done\n")
	s.await(EventExit, in.ID, "")
	if got, _ := os.ReadFile(s.rootfs + "/tmp/in"); !bytes.Equal(got, data) {
		t.Errorf("%d bytes of input arrived, not %d", len(got), len(data))
	}
}

// What an upgrade interrupted is sent though the process has nothing more to say, and
// has ended before or after.
func TestSlowClientGetsTheLast(t *testing.T) {
	s := newTest(t)
	s.follow()
	for _, ends := range []bool{true, false} {
		os.Remove(s.rootfs + "/tmp/go")
		r := s.request("dd if=/bin/busybox bs=60000 count=1 2>/tmp/done; while [ ! -e /tmp/go ]; do usleep 5000; done")
		c, theirs := s.ends()
		// With that it takes less than is written at once.
		if err := unix.SetsockoptInt(int(theirs.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<13); err != nil {
			t.Fatal(err)
		}
		r.Attach = []AttachRequest{{Stdout: true}}
		if _, err := s.Start(t.Context(), r, nil, theirs); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		waitFor(t, "the output to be in the log", func() bool { return len(s.lines(r)) > 0 })
		end := func() {
			os.WriteFile(s.rootfs+"/tmp/go", nil, 0o600)
			s.await(EventExit, r.ID, "")
		}
		if ends {
			end()
		}
		if err := s.Upgrade(t.Context(), s.copyBinary(0)); err != nil {
			t.Fatal(err)
		}
		if !ends {
			end()
		}
		want, _ := os.ReadFile(s.rootfs + "/bin/busybox")
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want[:60000]) {
			t.Errorf("ended before: %v: %d bytes came, %v", ends, len(got), err)
		}
	}
}

// The client of a remote engine is a TCP socket: its half-close and its end are
// the same to it.
func TestTCPClient(t *testing.T) {
	s := newTest(t)
	s.follow()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := accepted.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	r := s.request("cat; echo end; exit 4")
	r.OpenStdin, r.StdinOnce = true, true
	if err := s.Attach(t.Context(), &AttachRequest{ID: r.ID, Stdin: true, Stdout: true}, theirs); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	accepted.Close()
	s.start(r)
	io.WriteString(c, "hello\n")
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello\nend\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 4 {
		t.Errorf("%+v", e)
	}
}

// A client that dies while it holds the container up lets go of it.
func TestStalledClientDies(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("seq 1 200000; exit 3")
	c := s.slow(&AttachRequest{ID: r.ID, Stdout: true, AttachID: "slow"})
	s.start(r)
	waitFor(t, "the log to begin", func() bool { return len(s.lines(r)) > 0 })
	c.Close()
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 3 {
		t.Errorf("%+v", e)
	}
	if n := len(s.lines(r)); n != 200000 {
		t.Errorf("the log has %d lines", n)
	}
}

// A pending client that goes away is not kept.
func TestPendingClientGoesAway(t *testing.T) {
	s := newTest(t)
	info, _ := s.Info(t.Context())
	fds := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", info.Pid))
		if err != nil {
			t.Skip(err)
		}
		return len(list)
	}
	s.List(t.Context())
	before := fds()
	for i := range 20 {
		s.slow(&AttachRequest{ID: fmt.Sprintf("x%d", i), Stdout: true}).Close()
	}
	waitFor(t, "the descriptors to be closed", func() bool { return fds() <= before })
}

func TestPauseUpdateAndOOM(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("")
	spec := s.spec("sh", "-c", "while [ ! -e /tmp/eat ]; do usleep 5000; done; dd if=/dev/zero of=/dev/null bs=200M count=1")
	spec.Mounts = spec.Mounts[:1]
	os.WriteFile(s.rootfs+"/dev/null", nil, 0o666)
	spec.Process.Args[2] = "while [ ! -e /tmp/eat ]; do usleep 5000; done; x=$(yes 0123456789012345678901234567890123456789 | head -c 200000000); echo ${#x}"
	limit := int64(20 << 20)
	spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	r.Spec = mustJSON(spec)
	s.start(r)
	if err := s.Pause(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Resume(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	more := int64(30 << 20)
	if err := s.Update(t.Context(), r.ID, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more, Swap: &more}}); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(s.rootfs+"/tmp/eat", nil, 0o600)
	s.await(EventOOM, r.ID, "")
	if e := s.await(EventExit, r.ID, ""); !e.OOMKilled || e.ExitCode == 0 {
		t.Errorf("%+v", e)
	}
}

// The name of a container that was forgotten can be used while its cgroup is
// still being removed.
func TestStartAfterForget(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("exit 2")
	for range 5 * rounds(t) {
		s.start(r)
		if e := s.await(EventExit, r.ID, ""); e.ExitCode != 2 {
			t.Fatalf("%+v", e)
		}
		if err := s.Forget(t.Context(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// SIGTERM, as at shutdown of the machine, does not end a shim that holds
// something.
func TestTerminated(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("sleep 100")
	s.start(r)
	info, _ := s.Info(t.Context())
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE} {
		syscall.Kill(info.Pid, sig)
		syscall.Kill(info.NetPid, sig)
	}
	if err := s.Signal(t.Context(), r.ID, "", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	s.await(EventExit, r.ID, "")
	waitFor(t, "the shim to have nothing left", func() bool {
		syscall.Kill(info.Pid, syscall.SIGTERM)
		time.Sleep(time.Millisecond)
		return gone(info.Pid)
	})
}

func TestDetachKeys(t *testing.T) {
	for _, tc := range []struct {
		keys, typed, want string
		detached          bool
	}{
		{"\x10\x11", "abc", "abc", false},
		{"\x10\x11", "a|\x10|\x11", "a", true},
		{"\x10\x11", "\x10\x11rest", "", true},
		{"\x10\x11", "a\x10|b", "a\x10b", false},
		{"\x10\x11", "\x10|\x10|\x11", "\x10\x10\x11", false}, // as Docker: nothing is looked at twice
		{"abc", "ab|ab|c", "ababc", false},
		{"a", "xya", "xy", true},
		{"\x10\x11", "\x10", "", false}, // held back
	} {
		d := detachKeys{sequence: []byte(tc.keys)}
		got, detached := "", false
		for part := range strings.SplitSeq(tc.typed, "|") {
			in, det := d.filter([]byte(part))
			got += string(in)
			if det {
				detached = true
				break
			}
		}
		if got != tc.want || detached != tc.detached {
			t.Errorf("%q typed for %q: %q, %v", tc.typed, tc.keys, got, detached)
		}
	}
}

// Frames come from root only, and still must not take the shim down.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01{}x"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 8 {
			return
		}
		var fr frame
		if err := fr.read(bytes.NewReader(b[8:]), b[:8:8], 8); err == nil && len(fr.json)+len(fr.blob) > len(b) {
			t.Fatal("more came out than went in")
		}
	})
}
