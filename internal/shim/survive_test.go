package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/portproxy"
)

// counter is a container that writes numbered lines until its end, which comes
// when a file appears.
func (s *shimTest) counter() (*StartRequest, func()) {
	r := s.request("")
	stop := fmt.Sprintf("/tmp/stop-%s", r.ID)
	script := "i=0; while true; do i=$((i+1)); echo line $i; [ -e " + stop + " ] && exit 9; done"
	r.Spec = mustJSON(s.spec("sh", "-c", script))
	return r, func() {
		if err := os.WriteFile(filepath.Join(s.rootfs, stop), nil, 0o600); err != nil {
			s.Fatal(err)
		}
	}
}

// checkLines fails unless the log holds every line of a counter once.
func (s *shimTest) checkLines(r *StartRequest) {
	s.Helper()
	list := s.lines(r)
	if len(list) == 0 {
		s.Fatal("the log is empty")
	}
	for i, l := range list {
		if want := fmt.Sprintf("stdout:line %d\n", i+1); l != want {
			s.Fatalf("line %d of %d of the log is %q", i+1, len(list), l)
		}
	}
}

// The daemon is killed: whoever speaks to the shim is gone in the middle of
// anything. Nothing that was begun is undone or lost.
func TestDaemonDies(t *testing.T) {
	s := newTest(t)
	var list []*StartRequest
	var stops []func()
	for range rounds(t) {
		r, stop := s.counter()
		list, stops = append(list, r), append(stops, stop)
		conn, err := net.Dial("unix", SocketPath(s.root))
		if err != nil {
			t.Fatal(err)
		}
		// It asks and does not live to hear the answer.
		if err := send(conn.(*net.UnixConn), request{"start", mustJSON(r)}, r.Spec); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := s.Events(ctx); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		cancel()
		if len(list) > 3 { // not too many busy ones at once
			stops[len(stops)-4]()
		}
	}
	waitFor(t, "all to be started", func() bool {
		l, err := s.List(t.Context())
		return err == nil && len(l) == len(list)
	})
	for _, stop := range stops {
		stop()
	}
	s.follow()
	codes := map[string]Status{}
	for range list {
		e := <-s.events
		codes[e.ID] = e.Status
	}
	for _, r := range list {
		if codes[r.ID].ExitCode != 9 {
			t.Errorf("%s: %+v", r.ID, codes[r.ID])
		}
		s.checkLines(r)
	}
}

// io is killed: containers run on, the next io adopts them with their exit
// codes, their input and their terminals, and no line is lost or written twice
// but what was between the pipe and the file at that moment.
func TestIODies(t *testing.T) {
	s := newTest(t)
	s.follow()
	tty := s.request("while read x; do echo got $x; [ $x = end ] && exit 5; done")
	tty.Terminal, tty.OpenStdin = true, true
	first := s.start(tty)
	cat := s.request("cat; exit 6")
	cat.OpenStdin, cat.StdinOnce = true, true
	s.start(cat)
	quiet := s.request("while [ ! -e /tmp/quiet ]; do usleep 10000; done; echo bye; exit 3")
	s.start(quiet)
	for i := range rounds(t) {
		dead := s.kill(func(i Info) int { return i.Pid })
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range list {
			if !st.Running {
				t.Fatalf("round %d: %+v", i, st)
			}
		}
		if len(list) != 3 {
			t.Fatalf("round %d: %+v", i, list)
		}
		st := s.attach(&AttachRequest{ID: tty.ID, Stdin: true, Stdout: true})
		st.typed(fmt.Sprintf("round%d\n", i))
		st.expect(fmt.Sprintf("got round%d\r\n", i))
		st.Close()
		if info, _ := s.Info(t.Context()); info.Pid == dead {
			t.Fatal("io is still the one that was killed")
		}
	}
	st := s.attach(&AttachRequest{ID: cat.ID, Stdin: true, Stdout: true})
	st.typed("through\n")
	st.expect("through\n")
	st.CloseWrite()
	st.ended()
	if e := s.await(EventExit, cat.ID, ""); e.ExitCode != 6 || e.ExitUnknown {
		t.Errorf("%+v", e)
	}
	st = s.attach(&AttachRequest{ID: tty.ID, Stdin: true, Stdout: true})
	st.typed("end\n")
	st.ended()
	if e := s.await(EventExit, tty.ID, ""); e.ExitCode != 5 || e.Pid != first.Pid {
		t.Errorf("%+v", e)
	}
	os.WriteFile(filepath.Join(s.rootfs, "tmp/quiet"), nil, 0o600)
	if e := s.await(EventExit, quiet.ID, ""); e.ExitCode != 3 {
		t.Errorf("%+v", e)
	}
	if got := s.lines(quiet); len(got) != 1 || got[0] != "stdout:bye\n" {
		t.Errorf("log %q", got)
	}
}

// kill kills a role and waits until it is dead.
func (s *shimTest) kill(which func(Info) int) (pid int) {
	s.Helper()
	info, err := s.Info(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	pid = which(info)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.Fatal(err)
	}
	waitFor(s, "a role to die", func() bool { return !alive(pid) })
	return pid
}

// What ends while there is no io, and no net that kept its pidfd, is reported as
// unknown, never as 0; with net its code is known if the kernel can tell.
func TestExitWithoutIO(t *testing.T) {
	s := newTest(t)
	// The test plays init, into whose hands the containers fall.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	for i := range rounds(t) {
		withNet := i%2 == 0
		r := s.request("while [ ! -e /tmp/go-" + fmt.Sprint(i) + " ]; do usleep 1000; done; echo last; exit 8")
		reply := s.start(r)
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		syscall.Kill(info.Pid, syscall.SIGKILL)
		if !withNet {
			syscall.Kill(info.NetPid, syscall.SIGKILL)
			waitFor(t, "net to die", func() bool { return !alive(info.NetPid) })
		}
		waitFor(t, "io to die", func() bool { return gone(info.Pid) })
		os.WriteFile(filepath.Join(s.rootfs, fmt.Sprintf("tmp/go-%d", i)), nil, 0o600)
		if _, err := unix.Wait4(reply.Pid, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		s.follow()
		e := s.await(EventExit, r.ID, "")
		if withNet && kernelTellsExits() && (e.ExitCode != 8 || e.ExitUnknown) {
			t.Errorf("%+v", e)
		}
		if !withNet && (!e.ExitUnknown || e.ExitCode == 0) {
			t.Errorf("%+v", e)
		}
		if withNet {
			if got := s.lines(r); len(got) != 1 || got[0] != "stdout:last\n" {
				t.Errorf("log %q", got)
			}
		}
		s.Forget(t.Context(), r.ID, "")
	}
}

// kernelTellsExits: PIDFD_INFO_EXIT came with Linux 6.15.
func kernelTellsExits() bool {
	var u unix.Utsname
	unix.Uname(&u)
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}

// A start during which io dies is not done by the next one: who asked for it is told
// that it failed, and may have gone on without it. That there were other connections
// to the one that died does not make a difference.
func TestStartedOnceWhenIODies(t *testing.T) {
	s := newTest(t)
	r := s.request("sleep 100")
	spec := s.spec("sleep", "100")
	tried, over := filepath.Join(s.root, "tried"), filepath.Join(s.root, "over")
	hook := "echo $$ >>" + tried + "; until [ -e " + over + " ]; do sleep 0.01; done"
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", hook}}}}
	r.Spec, _ = json.Marshal(spec)
	var idle []*link
	for range 3 {
		l, err := s.Client.connect(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, l)
	}
	for _, l := range idle {
		s.release(l)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := s.Start(t.Context(), r, nil)
		failed <- err
	}()
	waitFor(t, "the hook", func() bool { b, _ := os.ReadFile(tried); return len(b) > 0 })
	s.kill(func(i Info) int { return i.Pid })
	if err := <-failed; !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a start whose io died: %v", err)
	}
	b, err := os.ReadFile(tried)
	hooks := strings.Fields(string(b))
	if err != nil || len(hooks) != 1 {
		t.Errorf("it was tried %d times (%v)", len(hooks), err)
	}
	if err := os.WriteFile(over, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, hook := range hooks {
		pid, _ := strconv.Atoi(hook)
		waitFor(t, "the hook to end", func() bool { return !alive(pid) })
	}
}

// An upgrade under load keeps everything: PIDs, terminals, half typed keys,
// attached clients, lines, exit codes.
func TestUpgrade(t *testing.T) {
	s := newTest(t)
	s.follow()
	r, stop := s.counter()
	r.Log.Opts = map[string]string{"max-size": "500m"}
	client := s.attach(&AttachRequest{ID: r.ID, Stdout: true, Multiplex: true})
	before := s.start(r)
	tty := s.request("while read x; do echo got $x; [ $x = end ] && exit 5; done")
	tty.Terminal, tty.OpenStdin = true, true
	typist := s.attach(&AttachRequest{ID: tty.ID, Stdin: true, Stdout: true})
	s.start(tty)
	half := s.request("printf half; while [ ! -e /tmp/rest ]; do usleep 5000; done; echo rest")
	halfway := s.attach(&AttachRequest{ID: half.ID, Stdout: true})
	s.start(half)
	halfway.expect("half")
	pending := s.request("read x; echo finally $x")
	pending.OpenStdin = true
	waiting := s.attach(&AttachRequest{ID: pending.ID, Stdin: true, Stdout: true})
	waiting.typed("early\n")

	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Others go on working meanwhile.
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if _, err := s.List(t.Context()); err != nil {
				t.Errorf("a call during an upgrade: %v", err)
				return
			}
		}
	})
	short := []*StartRequest{}
	for i := range rounds(t) {
		x := s.request(fmt.Sprintf("echo short; exit %d", i%100))
		short = append(short, x)
		s.start(x)
		if err := s.Upgrade(t.Context(), s.copyBinary(i)); err != nil {
			t.Fatal(err)
		}
		typist.typed(fmt.Sprintf("round%d\n", i))
		typist.expect(fmt.Sprintf("got round%d\r\n", i))
		if after, err := s.Info(t.Context()); err != nil || after.Pid != info.Pid || after.Binary == info.Binary {
			t.Fatalf("after the upgrade: %+v %v", after, err)
		}
	}
	close(quit)
	wg.Wait()
	os.WriteFile(filepath.Join(s.rootfs, "tmp/rest"), nil, 0o600)
	s.await(EventExit, half.ID, "")
	if got := s.lines(half); len(got) != 1 || got[0] != "stdout:halfrest\n" {
		t.Errorf("a line around the upgrades: %q", got)
	}
	for i, x := range short {
		if e := s.await(EventExit, x.ID, ""); e.ExitCode != i%100 {
			t.Errorf("%+v", e)
		}
		if got := s.lines(x); len(got) != 1 {
			t.Errorf("log: %q", got)
		}
	}
	stop()
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 9 || e.Pid != before.Pid {
		t.Errorf("%+v", e)
	}
	client.ended()
	s.checkLines(r)
	var text strings.Builder
	for _, l := range s.lines(r) {
		text.WriteString(strings.TrimPrefix(l, "stdout:"))
	}
	if client.text() != text.String() {
		t.Errorf("the client got %d bytes, the log %d", len(client.text()), text.Len())
	}
	typist.typed("end\n")
	typist.ended()
	if e := s.await(EventExit, tty.ID, ""); e.ExitCode != 5 {
		t.Errorf("%+v", e)
	}
	s.start(pending)
	waiting.ended()
	if waiting.text() != "finally early\n" {
		t.Errorf("the pending client got %q", waiting.text())
	}
}

func (s *shimTest) copyBinary(i int) string {
	path := filepath.Join(filepath.Dir(s.root), fmt.Sprintf("gantry-shim-%d", i%2))
	os.Remove(path)
	if err := os.Link(s.binary, path); err != nil {
		in, err := os.Open(s.binary)
		if err != nil {
			s.Fatal(err)
		}
		defer in.Close()
		out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			s.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			s.Fatal(err)
		}
		out.Close()
	}
	return path
}

// An upgrade reaches net too, and the ports stay.
func TestUpgradeRenewsNet(t *testing.T) {
	s := newTest(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	mapping := portproxy.Mapping{Proto: "tcp", HostIP: "127.0.0.1", HostPort: port, TargetIP: "127.0.0.1", TargetPort: 1}
	if err := s.SetPorts(t.Context(), "web", []portproxy.Mapping{mapping}); err != nil {
		t.Fatal(err)
	}
	before, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(s.binary)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(s.root), "another")
	if err := os.WriteFile(path, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Upgrade(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "another net", func() bool {
		i, err := s.Info(t.Context())
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", i.NetPid))
		return err == nil && i.NetPid != before.NetPid && i.Pid == before.Pid && filepath.Base(exe) == filepath.Base(path)
	})
	waitFor(t, "the port to be open", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// A binary that cannot take over changes nothing.
func TestUpgradeRefused(t *testing.T) {
	s := newTest(t)
	r, stop := s.counter()
	s.start(r)
	script := filepath.Join(filepath.Dir(s.root), "script")
	os.WriteFile(script, []byte("#!/bin/sh\necho 99\n"), 0o755)
	broken := filepath.Join(filepath.Dir(s.root), "broken")
	os.WriteFile(broken, []byte("\x7fELF nonsense"), 0o755)
	for _, path := range []string{"/no/such/file", script, broken} {
		if err := s.Upgrade(t.Context(), path); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("upgrade to %s: %v", path, err)
		}
	}
	// It passes the check and then cannot be executed.
	once := filepath.Join(filepath.Dir(s.root), "once")
	os.WriteFile(once, []byte("#!/bin/sh\nrm $0\necho "+Version+"\n"), 0o755)
	if err := s.Upgrade(t.Context(), once); err == nil {
		t.Error("an upgrade to nothing worked")
	}
	stop()
	s.follow()
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 9 {
		t.Errorf("%+v", e)
	}
	s.checkLines(r)
}

// net is killed: it is back within a second with its ports, and nothing else
// notices.
func TestNetDies(t *testing.T) {
	s := newTest(t)
	s.follow()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	mapping := portproxy.Mapping{Proto: "tcp", HostIP: "127.0.0.1", HostPort: uint16(port), TargetIP: "127.0.0.1", TargetPort: uint16(echo.Addr().(*net.TCPAddr).Port), Name: "web"}
	if err := s.SetPorts(t.Context(), "web", []portproxy.Mapping{mapping}); err != nil {
		t.Fatal(err)
	}
	// Others that want the port are told this name.
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", info.NetPid)); string(name) != "gantry-shim\n" {
		t.Errorf("the net role is called %q, %v", name, err)
	}
	err = s.SetPorts(t.Context(), "other", []portproxy.Mapping{mapping})
	var bind *portproxy.BindError
	if !errors.As(err, &bind) || !bind.InUse() || !strings.Contains(err.Error(), "web") {
		t.Errorf("a port in use: %v", err)
	}
	r, stop := s.counter()
	s.start(r)
	tty := s.request("read x; exit 5")
	tty.Terminal, tty.OpenStdin = true, true
	s.start(tty)
	asks := func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		return string(b) == "hello"
	}
	for range rounds(t) {
		waitFor(t, "the port to answer", asks)
		before := time.Now()
		s.kill(func(i Info) int { return i.NetPid })
		waitFor(t, "the port to answer again", asks)
		if d := time.Since(before); d > time.Second {
			t.Errorf("the port was away for %v", d)
		}
	}
	// The new net has the descriptors again: io may die now.
	s.kill(func(i Info) int { return i.Pid })
	st := s.attach(&AttachRequest{ID: tty.ID, Stdin: true, Stdout: true})
	st.typed("x\n")
	if e := s.await(EventExit, tty.ID, ""); e.ExitCode != 5 {
		t.Errorf("%+v", e)
	}
	waitFor(t, "the port to answer", asks)
	stop()
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 9 {
		t.Errorf("%+v", e)
	}
	if err := s.SetPorts(t.Context(), "web", nil); err != nil {
		t.Error(err)
	}
	if asks() {
		t.Error("the port is still open")
	}
}

// Daemons that die one after another start shims at once: one of these serves, and
// the others leave it to it, also when it is slow.
func TestShimsBeginAtOnce(t *testing.T) {
	s := newTest(t)
	for range rounds(t) {
		s.Client.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Another seems to have begun, and does not answer yet.
		lock, err := lockFile(t.Context(), filepath.Join(s.root, "shim.lock"))
		if err != nil {
			t.Fatal(err)
		}
		const n = 3
		began := make(chan error, n)
		for range n {
			go func() { began <- launch(t.Context(), s.root, s.binary) }()
		}
		lock()
		serving := 0
		for range n {
			switch err := <-began; {
			case err == nil:
				serving++
			case !errors.Is(err, errServed):
				t.Error(err)
			}
		}
		if serving != 1 {
			t.Fatalf("%d shims serve", serving)
		}
	}
}
