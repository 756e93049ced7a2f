package shim

import (
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestRunLogAndExitCode(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("echo out; echo err >&2; exit 7")
	r.Labels = map[string]string{"a": "b"}
	st := s.attach(&AttachRequest{ID: r.ID, Stdout: true, Stderr: true, Multiplex: true})
	reply := s.start(r)
	e := s.await(EventExit, r.ID, "")
	if e.ExitCode != 7 || e.Running || e.ExitUnknown || e.Pid != reply.Pid || e.Labels["a"] != "b" {
		t.Errorf("the exit is %+v", e)
	}
	st.ended()
	if st.out.String() != "out\n" || st.err.String() != "err\n" {
		t.Errorf("attached: %q, %q", st.out.String(), st.err.String())
	}
	got := s.lines(r)
	if len(got) != 2 || !contains(got, "stdout:out\n") || !contains(got, "stderr:err\n") {
		t.Errorf("log: %q", got)
	}
	// Nobody has forgotten it: another subscriber hears of it, until then.
	s.follow()
	s.await(EventExit, r.ID, "")
	if err := s.Forget(t.Context(), r.ID, ""); err != nil {
		t.Error(err)
	}
	if list, _ := s.List(t.Context()); len(list) != 0 {
		t.Errorf("still there: %+v", list)
	}
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}

func TestSignalIsExitCode(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("sleep 100")
	s.start(r)
	if err := s.Signal(t.Context(), r.ID, "", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 137 {
		t.Errorf("the exit is %+v", e)
	}
	if err := s.Signal(t.Context(), r.ID, "", syscall.SIGKILL, false); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("signalling the dead: %v", err)
	}
	// The name can be used again at once.
	s.start(r)
	s.Signal(t.Context(), r.ID, "", syscall.SIGKILL, true)
}

func TestStartFailures(t *testing.T) {
	s := newTest(t)
	r := s.request("")
	spec := s.spec("/no/such/program")
	r.Spec, _ = json.Marshal(spec)
	st, theirs := s.pair(true)
	if err := s.Attach(t.Context(), &AttachRequest{ID: r.ID, Stdout: true, Multiplex: true}, theirs); err != nil {
		t.Fatal(err)
	}
	_, err := s.Start(t.Context(), r, nil)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing program: %v", err)
	}
	// The daemon still has the client and something to say to it.
	if _, err := theirs.Write([]byte{1, 0, 0, 0, 0, 0, 0, 2, 'h', 'i'}); err != nil {
		t.Errorf("the client was cut off: %v", err)
	}
	st.expect("hi")
	theirs.Close()
	st.ended()
	if list, _ := s.List(t.Context()); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
	r = s.request("sleep 100")
	s.start(r)
	if _, err := s.Start(t.Context(), r, nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a second start: %v", err)
	}
	if _, err := s.Start(t.Context(), &StartRequest{ID: "../x", Spec: r.Spec}, nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a bad ID: %v", err)
	}
	r = s.request("true")
	r.Log.Opts = map[string]string{"max-size": "x"}
	if _, err := s.Start(t.Context(), r, nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a bad log option: %v", err)
	}
}

func TestInput(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("cat; echo end")
	r.OpenStdin, r.StdinOnce = true, true
	st := s.attach(&AttachRequest{ID: r.ID, Stdin: true, Stdout: true, Unread: []byte("early ")})
	s.start(r)
	st.typed("hello\n")
	st.expect("early hello\n")
	st.CloseWrite()
	st.ended()
	if st.text() != "early hello\nend\n" {
		t.Errorf("got %q", st.text())
	}
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 0 {
		t.Errorf("%+v", e)
	}
}

// Input that stays open: the end of one client is not the end of the input.
func TestInputOfSeveralClients(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("cat")
	r.OpenStdin = true
	s.start(r)
	one := s.attach(&AttachRequest{ID: r.ID, Stdin: true, Stdout: true, AttachID: "one"})
	two := s.attach(&AttachRequest{ID: r.ID, Stdin: true, Stdout: true, AttachID: "two"})
	one.typed("a\n")
	one.expect("a\n")
	two.expect("a\n")
	one.CloseWrite()
	one.ended()
	if e := s.await(EventEnd, r.ID, ""); e.AttachID != "one" {
		t.Errorf("%+v", e)
	}
	two.typed("b\n")
	two.expect("b\n")
	two.Close()
	s.await(EventEnd, r.ID, "")
	if st, _ := s.List(t.Context()); len(st) != 1 || !st[0].Running {
		t.Errorf("the container has ended: %+v", st)
	}
}

func TestTerminal(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("stty size; read x; stty size; sleep 100")
	r.Terminal, r.OpenStdin, r.ConsoleSize = true, true, [2]uint{33, 77}
	st := s.attach(&AttachRequest{ID: r.ID, Stdin: true, Stdout: true, AttachID: "x"})
	s.start(r)
	st.expect("33 77\r\n")
	if err := s.Resize(t.Context(), r.ID, "", 44, 88); err != nil {
		t.Fatal(err)
	}
	st.typed("\x10") // held back: it may be the beginning of the keys
	st.typed("a\n")
	st.expect("44 88\r\n")
	st.typed("\x10")
	st.typed("\x11")
	st.ended()
	if e := s.await(EventDetach, r.ID, ""); e.AttachID != "x" {
		t.Errorf("%+v", e)
	}
	if list, _ := s.List(t.Context()); len(list) != 1 || !list[0].Running {
		t.Errorf("the container has ended: %+v", list)
	}
}

func TestExec(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("sleep 100")
	s.start(r)
	process := func(script string) json.RawMessage {
		raw, _ := json.Marshal(specs.Process{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"})
		return raw
	}
	for i, exec := range []string{"e1", "e2", "e3"} {
		st := s.exec(&ExecRequest{
			ID: r.ID, ExecID: exec, Process: process("cat; echo err >&2; exit " + string('0'+rune(i))), OpenStdin: true,
			Attach: &AttachRequest{Stdin: true, Stdout: true, Stderr: true, Multiplex: true},
		})
		st.typed("data\n")
		st.CloseWrite()
		st.ended()
		if st.out.String() != "data\n" || st.err.String() != "err\n" {
			t.Errorf("%q %q", st.out.String(), st.err.String())
		}
		if e := s.await(EventExit, r.ID, exec); e.ExitCode != i {
			t.Errorf("%+v", e)
		}
	}
	// With a terminal.
	st := s.exec(&ExecRequest{
		ID: r.ID, ExecID: "tty", Process: process("read x; stty size; exit 3"), OpenStdin: true, Terminal: true,
		Attach: &AttachRequest{Stdin: true, Stdout: true},
	})
	if err := s.Resize(t.Context(), r.ID, "tty", 10, 20); err != nil {
		t.Error(err)
	}
	st.typed("\n")
	st.expect("10 20")
	if e := s.await(EventExit, r.ID, "tty"); e.ExitCode != 3 {
		t.Errorf("%+v", e)
	}
	// A program that is not there.
	raw, _ := json.Marshal(specs.Process{Args: []string{"nope"}, Env: []string{"PATH=/bin"}, Cwd: "/"})
	if _, err := s.Exec(t.Context(), &ExecRequest{ID: r.ID, ExecID: "nope", Process: raw}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing program: %v", err)
	}
	// It dies with its container.
	if _, err := s.Exec(t.Context(), &ExecRequest{ID: r.ID, ExecID: "long", Process: process("sleep 100"), Detach: true}, nil); err != nil {
		t.Fatal(err)
	}
	s.Signal(t.Context(), r.ID, "", syscall.SIGKILL, false)
	if e := s.await(EventExit, r.ID, "long"); e.ExitCode != 137 {
		t.Errorf("%+v", e)
	}
	s.await(EventExit, r.ID, "")
	if _, err := s.Exec(t.Context(), &ExecRequest{ID: r.ID, ExecID: "late", Process: process("true")}, nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("an exec in the dead: %v", err)
	}
}

// A process that leaves a child behind, which holds its output, still ends.
func TestGrandchildHoldsOutput(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("sleep 100")
	s.start(r)
	raw, _ := json.Marshal(specs.Process{Args: []string{"sh", "-c", "sleep 99 & echo done"}, Env: []string{"PATH=/bin"}, Cwd: "/"})
	st := s.exec(&ExecRequest{ID: r.ID, ExecID: "e", Process: raw, Attach: &AttachRequest{Stdout: true}})
	st.ended()
	if st.text() != "done\n" {
		t.Errorf("got %q", st.text())
	}
	s.await(EventExit, r.ID, "e")
}

// Without a PID namespace of its own a container's children outlive its first
// process: they are killed, and reaped.
func TestSharedPIDNamespace(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("")
	spec := s.spec("sh", "-c", "sleep 98765 & (sleep 98766 &) ; echo $$; exit 4")
	spec.Linux.Namespaces = spec.Linux.Namespaces[1:]
	r.Spec, _ = json.Marshal(spec)
	s.start(r)
	if e := s.await(EventExit, r.ID, ""); e.ExitCode != 4 {
		t.Errorf("%+v", e)
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the orphans to be reaped", func() bool { return len(children(t, info.Pid, info.NetPid)) == 0 })
}

func TestMuchOutput(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("seq 1 200000")
	r.Log.Opts = map[string]string{"max-size": "100m"}
	st := s.attach(&AttachRequest{ID: r.ID, Stdout: true, Multiplex: true})
	s.start(r)
	st.ended()
	s.await(EventExit, r.ID, "")
	var want strings.Builder
	for _, l := range s.lines(r) {
		want.WriteString(strings.TrimPrefix(l, "stdout:"))
	}
	if n := strings.Count(want.String(), "\n"); n != 200000 || st.text() != want.String() {
		t.Errorf("%d lines in the log, %d bytes attached, %d in the log", n, len(st.text()), want.Len())
	}
}
