package cli

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tells has the fake answer as an engine of ours does that tells on the stream how a
// run ended.
func (f *fake) tells(stream func(net.Conn)) {
	f.answer(createRoute, answer{stream: stream, header: map[string]string{"Gantry-Created": `{"Id":"` + fakeID + `"}`, "Gantry-Run": "end=1"}})
}

// A run without input is one connection and one request, which the exit code comes on
// as well, after the last of the output.
func TestRunOnOneConnection(t *testing.T) {
	failed := "\n\nRun 'gantry run --help' for more information\n"
	long := strings.Repeat("0123456789", 10_000)
	for text, want := range map[string]result{
		`0`: {long + "out\n", "err\n", 0},
		`3`: {long + "out\n", "err\n", 3},
		`{"StatusCode":255,"Error":{"Message":"the exit code is unknown"}}`: {long + "out\n", "err\ngantry: error waiting for container: the exit code is unknown\n", 125},
		`{"message":"exec: \"x\": executable file not found in $PATH"}`:     {"", `gantry: exec: "x": executable file not found in $PATH` + failed, 127},
		`{"message":"exec: \"/etc\": is a directory"}`:                      {"", `gantry: exec: "/etc": is a directory` + failed, 126},
		`{"message":"port is already allocated"}`:                           {"", "gantry: port is already allocated" + failed, 125},
	} {
		f := newFake(t)
		f.tells(func(c net.Conn) {
			if want.Out != "" {
				all := append(append(frame(1, long), frame(2, "err\n")...), frame(1, "out\n")...)
				for len(all) > 0 { // in whatever pieces it comes
					n := min(len(all), 7777)
					c.Write(all[:n])
					all = all[n:]
				}
			}
			c.Write(frame(frameEnding, text))
		})
		if diff := cmp.Diff(want, run(t, "gantry", f.Host, "run", "--rm", "busybox", "x")); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
		calls := f.take()
		if n := f.accepted.Load(); n != 1 || len(calls) != 1 {
			t.Errorf("%s: %d connections for %v", text, n, calls)
		}
		got, err := url.ParseQuery(calls[0].run)
		if diff := cmp.Diff(url.Values{"stream": {"1"}, "stdout": {"1"}, "stderr": {"1"}, "end": {"1"}}, got); err != nil || diff != "" {
			t.Errorf("asked for %q: %v", calls[0].run, err)
		}
	}
}

// Only a stream of frames can tell, to who only reads it.
func TestRunNotOnOneConnection(t *testing.T) {
	for flags, want := range map[string]bool{"": true, "-a stdout": true, "-a stderr": true, "-i": false, "-t": false, "-a stdin": false, "-a stdin -a stdout": false, "-d": false} {
		f := newFake(t)
		run(t, "gantry", f.Host, append(append([]string{"run"}, strings.Fields(flags)...), "busybox")...)
		for _, c := range f.take() {
			if c.Path == "/containers/create" && strings.Contains(c.run, "end=1") != want {
				t.Errorf("run %s asks for %q", flags, c.run)
			}
		}
	}
}

// A stream that ends without telling, at any byte, leaves the client to ask.
func TestRunIsNotTold(t *testing.T) {
	all := append(frame(1, "all\n"), frame(frameEnding, "137")...)
	for _, n := range []int{12, 13, 20, 21, len(all) - 1} {
		f := newFake(t)
		f.tells(func(c net.Conn) { c.Write(all[:n]) })
		f.answer(waitRoute, answer{body: `{"StatusCode":7}`})
		if diff := cmp.Diff(result{"all\n", "", 7}, run(t, "gantry", f.Host, "run", "busybox")); diff != "" {
			t.Errorf("after %d bytes: %s", n, diff)
		}
		if calls := f.take(); len(calls) != 2 || calls[0].Query.Get("condition") != "first-exit" {
			t.Errorf("asked for %v", calls)
		}
	}
}

// An engine that tells is told apart from one that does not know of it, and whose
// stream just ends.
func TestRunAtAnOlderEngine(t *testing.T) {
	f := newFake(t)
	f.startsItself(func(c net.Conn) { c.Write(frame(1, "all\n")) })
	f.answer(waitRoute, answer{body: `{"StatusCode":7}`})
	if diff := cmp.Diff(result{"all\n", "WARNING: beware\n", 7}, run(t, "gantry", f.Host, "run", "busybox")); diff != "" {
		t.Error(diff)
	}
}

// What is not of the stream's format is not shown to anybody as output.
func TestRunIsToldNonsense(t *testing.T) {
	f := newFake(t)
	for text, want := range map[string]string{
		string(frame('?', "x")):                   "cannot read the engine's answer: its stream has a frame of the unknown type 63",
		string(frame(frameEnding, "")):            "cannot read the engine's answer: unexpected end of JSON input",
		string(frame(frameEnding, `{"Status`)):    "cannot read the engine's answer: unexpected end of JSON input",
		string(frame(frameEnding, `{"message":`)): "cannot read the engine's answer: unexpected end of JSON input",
	} {
		f.tells(func(c net.Conn) { io.WriteString(c, text) })
		if got := run(t, "gantry", f.Host, "run", "busybox"); got.Code != 1 || !strings.Contains(got.Err, want) {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// A signal is for the container once that runs, which the engine is asked only now:
// also one that comes before the container does.
func TestSignalToWhatTells(t *testing.T) {
	for _, before := range []bool{true, false} {
		f := newFake(t)
		create, killed := make(chan int, 1), make(chan bool)
		f.tells(func(c net.Conn) {
			if pid := <-create; !before {
				awaitSignals(t, pid)
				syscall.Kill(pid, syscall.SIGTERM)
			}
			<-killed
			c.Write(frame(1, "bye\n"))
			c.Write(frame(frameEnding, `{"StatusCode":143}`))
		})
		a := f.answers[createRoute]
		a.then = func() {
			create <- f.asking().pid
			if before {
				awaitSignals(t, f.asking().pid)
				syscall.Kill(f.asking().pid, syscall.SIGTERM)
			}
		}
		f.answer(createRoute, a)
		f.answer(waitRoute, answer{stall: killed, body: `{"StatusCode":143}`})
		f.answer("POST /containers/"+fakeID+"/kill", answer{status: 204, then: func() { close(killed) }})
		if diff := cmp.Diff(result{"bye\n", "", 143}, run(t, "gantry", f.Host, "run", "busybox")); diff != "" {
			t.Error(diff)
		}
		var asked []string
		f.mu.Lock()
		for _, c := range f.calls {
			asked = append(asked, c.Path[strings.LastIndex(c.Path, "/"):]+c.Query.Get("signal"))
		}
		f.mu.Unlock()
		if diff := cmp.Diff([]string{"/create", "/wait", "/killSIGTERM"}, asked); diff != "" {
			t.Error(diff)
		}
	}
}

// Without an engine a second signal ends the command.
func TestSignalsWhenNothingTells(t *testing.T) {
	f := newFake(t)
	over := make(chan bool)
	defer close(over)
	create, lost := make(chan int, 1), make(chan bool)
	f.tells(func(c net.Conn) {
		pid := <-create
		awaitSignals(t, pid)
		syscall.Kill(pid, syscall.SIGTERM)
		<-lost // it waits for an engine
		syscall.Kill(pid, syscall.SIGTERM)
		<-over
	})
	a := f.answers[createRoute]
	a.then = func() { create <- f.asking().pid }
	f.answer(createRoute, a)
	f.answer(waitRoute, answer{broken: true})
	f.answer("POST /containers/"+fakeID+"/kill", answer{broken: true, then: sync.OnceFunc(func() { close(lost) })})
	got := run(t, "gantry", f.Host, "run", "busybox")
	if got.Code != 143 || !strings.Contains(got.Err, "there is no engine to pass the signal on") {
		t.Errorf("%+v", got)
	}
}

// Output goes where it is wanted, or nowhere, and an output that fails is an error.
func TestCopyToEnd(t *testing.T) {
	var stream bytes.Buffer
	stream.Write(frame(1, "out"))
	stream.Write(frame(2, "err"))
	stream.Write(frame(1, ""))
	stream.Write(frame(frameEnding, `{"StatusCode":4}`))
	for _, tt := range []struct {
		out, err io.Writer
		fails    bool
	}{{nil, nil, false}, {io.Discard, nil, false}, {brokenPipe{}, nil, true}, {nil, brokenPipe{}, true}} {
		e, err := copyToEnd(bytes.NewReader(stream.Bytes()), &attachment{out: tt.out, err: tt.err})
		if (err != nil) != tt.fails || err == nil && (e == nil || e.StatusCode != 4) {
			t.Errorf("%+v: %+v, %v", tt, e, err)
		}
	}
}

// Whatever an engine sends ends, without a panic and without taking its word for how
// much memory it needs.
func FuzzCopyToEnd(f *testing.F) {
	f.Add(append(frame(1, "out"), frame(frameEnding, "7")...))
	f.Add(append(frame(2, "err"), frame(frameEnding, `{"message":"x"}`)...))
	f.Add([]byte("E\xff\xff\xff\xff\xff\xff\xff1"))
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xffout"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var out bytes.Buffer
		copyToEnd(bytes.NewReader(stream), &attachment{out: &out, err: &out})
		if out.Len() > len(stream) {
			t.Errorf("%d bytes became %d", len(stream), out.Len())
		}
	})
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
