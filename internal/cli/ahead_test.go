package cli

import (
	"encoding/json"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

const createRoute = "POST /containers/create"

// startsItself has the fake answer as an engine of ours does: with 101, and the
// streams, to the request that creates a container.
func (f *fake) startsItself(stream func(net.Conn)) {
	f.answer(createRoute, answer{stream: stream, header: map[string]string{"Gantry-Created": `{"Id":"` + fakeID + `","Warnings":["beware"]}`}})
}

// asking is the call that is being answered. It is called with the lock held.
func (f *fake) asking() call { return f.calls[len(f.calls)-1] }

// awaitSignals returns when a client has taken over the signals that are for its
// container. Go takes over most at once; SIGCONT is the last of the others.
func awaitSignals(t *testing.T, pid int) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		_, caught, _ := strings.Cut(string(status), "SigCgt:\t")
		caught, _, _ = strings.Cut(caught, "\n")
		if mask, _ := strconv.ParseUint(caught, 16, 64); mask&(1<<(syscall.SIGCONT-1)) != 0 {
			return
		}
	}
	t.Error("the client did not take over its signals")
}

// One request creates, attaches and starts; the other waits. Input, output, exit
// code, warnings and the ID's file are what they are with an engine that takes
// four.
func TestRunAhead(t *testing.T) {
	for _, flags := range []string{"-i", "-i --rm"} {
		f := newFake(t)
		asked := make(chan bool)
		f.startsItself(func(c net.Conn) {
			in, _ := io.ReadAll(c)
			c.Write(frame(2, "warning\n"))
			c.Write(frame(1, strings.ToUpper(string(in))))
			<-asked // an engine writes what there is before it answers
		})
		f.answer(waitRoute, answer{body: `{"StatusCode":3}`, then: func() { close(asked) }})
		name := filepath.Join(t.TempDir(), "cid")
		cmd := command(t, "gantry", f.Host, append(append([]string{"run", "--cidfile", name, "--detach-keys", "ctrl-x"}, strings.Fields(flags)...), "busybox", "cat")...)
		cmd.Stdin = strings.NewReader("hello\n")
		if diff := cmp.Diff(result{"HELLO\n", "WARNING: beware\nwarning\n", 3}, finishRun(t, cmd)); diff != "" {
			t.Error(diff)
		}
		if text, _ := os.ReadFile(name); string(text) != fakeID {
			t.Errorf("cidfile holds %q", text)
		}
		calls := f.take()
		if len(calls) != 2 || calls[0].Path != "/containers/"+fakeID+"/wait" || calls[0].Query.Get("condition") != "first-exit" {
			t.Fatalf("asked for %v", calls)
		}
		want, _ := url.ParseQuery("stream=1&stdin=1&stdout=1&stderr=1&detachKeys=ctrl-x")
		got, err := url.ParseQuery(calls[1].run)
		if diff := cmp.Diff(want, got); err != nil || diff != "" || calls[1].upgrade != "gantry-run" {
			t.Errorf("asked for %q by an upgrade to %q: %v", calls[1].run, calls[1].upgrade, err)
		}
	}
}

// A start that fails tells its reason in answer to the wait, and is what it is at
// an engine that is asked for it.
func TestRunAheadFails(t *testing.T) {
	for message, code := range map[string]int{
		`exec: "x": executable file not found in $PATH`: 127,
		`exec: "/etc": is a directory`:                  126,
		"port is already allocated":                     125,
		"No such container: net":                        125,
	} {
		for _, flags := range []string{"", "--rm", "-d", "-d --rm"} {
			f := newFake(t)
			over := make(chan bool)
			f.startsItself(func(net.Conn) { <-over })
			f.answer(waitRoute, answer{status: 404, body: `{"message":` + quoted(message) + `}`, then: func() { close(over) }})
			out := ""
			if strings.HasPrefix(flags, "-d") {
				out = fakeID + "\n"
				f.answer(createRoute, answer{status: 201, header: map[string]string{"Gantry-Run": "1"}, body: `{"Id":"` + fakeID + `"}{"message":` + quoted(message) + `}`})
				f.answer(waitRoute, answer{status: 404, body: `{"message":"No such container"}`})
			}
			got := run(t, "gantry", f.Host, append(append([]string{"run"}, strings.Fields(flags)...), "busybox", "x")...)
			got.Err = strings.TrimPrefix(got.Err, "WARNING: beware\n")
			if got.Code != code || got.Out != out || got.Err != "gantry: "+message+"\n\nRun 'gantry run --help' for more information\n" {
				t.Errorf("%s %s: %+v", flags, message, got)
			}
		}
	}
}

// A detached container is started by the request that creates it. When the engine
// goes away meanwhile the ID is known, and the next engine knows of the start.
func TestRunDetachedAhead(t *testing.T) {
	created := `{"Id":"` + fakeID + `"}`
	for body, want := range map[string]struct {
		started string
		result  result
	}{
		created + "{}": {neverStarted, result{fakeID + "\n", "", 0}},
		created:        {"2026-01-01T00:00:00Z", result{fakeID + "\n", "", 0}},
		created + " ":  {neverStarted, result{fakeID + "\n", "gantry: the engine went away in the middle of its answer\n\nRun 'gantry run --help' for more information\n", 125}},
	} {
		f := newFake(t)
		f.answer(createRoute, answer{status: 201, header: map[string]string{"Gantry-Run": "1"}, body: body})
		f.answer("GET /containers/"+fakeID+"/json", answer{body: `{"Id":"` + fakeID + `","State":{"StartedAt":"` + want.started + `"}}`})
		// A --rm container that was not started is not removed: that is not waited for.
		f.answer(waitRoute, answer{stall: make(chan bool)})
		for _, args := range [][]string{{"run", "-d", "busybox"}, {"run", "-d", "--rm", "busybox"}} {
			if diff := cmp.Diff(want.result, run(t, "gantry", f.Host, args...)); diff != "" {
				t.Errorf("%q: %v: %s", body, args, diff)
			}
		}
		for _, c := range f.take() {
			if c.Path == "/containers/create" && (c.run != "detach=1" || c.upgrade != "") || strings.HasSuffix(c.Path, "/start") {
				t.Errorf("asked for %v with %q and %q", c, c.run, c.upgrade)
			}
		}
	}
}

// What --use-api-socket puts into a container must be there before it is started.
func TestRunNotAhead(t *testing.T) {
	f := newFake(t)
	if got := run(t, "gantry", f.Host, "run", "-d", "--use-api-socket", "busybox"); got.Code != 0 {
		t.Error(got)
	}
	for _, c := range f.take() {
		if c.run != "" || c.upgrade != "" {
			t.Errorf("%v asks for a start", c)
		}
	}
}

// The engine goes away at any time after it has created the container. The next
// one knows whether it was started, and how it ends; an older one is asked in its
// own words.
func TestRunAheadNextEngine(t *testing.T) {
	next := `{"StatusCode":7}`
	for _, tt := range []struct {
		name  string
		first answer   // to the wait
		next  []answer // then
		want  result
		asked []string
	}{
		{"while it runs", answer{body: cut}, []answer{{status: 200, body: next}}, result{"all\n", "", 7}, []string{"first-exit", "first-exit"}},
		{"while it is started", answer{broken: true}, []answer{{status: 200, body: next}}, result{"all\n", "", 7}, []string{"first-exit", "first-exit"}},
		{"before it is started", answer{broken: true}, []answer{{status: 409, body: `{"message":"container c was created but never started"}`}},
			result{"", "gantry: container c was created but never started\n\nRun 'gantry run --help' for more information\n", 125}, []string{"first-exit", "first-exit"}},
		{"to an older one", answer{body: cut}, []answer{{status: 400, body: `{"message":"invalid condition: \"first-exit\""}`}, {status: 200, body: next}},
			result{"all\n", "", 7}, []string{"first-exit", "first-exit", "not-running"}},
		{"with the container", answer{broken: true}, []answer{{broken: true}, {status: 404, body: `{"message":"No such container"}`}},
			result{"", "gantry: error waiting for container: the container was removed while no engine was there to say how it ended\n\nRun 'gantry run --help' for more information\n", 125}, []string{"first-exit", "first-exit", "first-exit"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.startsItself(func(c net.Conn) {
				if tt.want.Out != "" {
					c.Write(frame(1, tt.want.Out))
				}
			})
			var following func()
			following = func() {
				if len(tt.next) > 0 {
					a := tt.next[0]
					tt.next = tt.next[1:]
					a.then = following
					f.answers[waitRoute] = a
				}
			}
			tt.first.then = following
			if !tt.first.broken {
				stall := make(chan bool) // the head of the answer goes out by itself
				close(stall)
				tt.first.stall = stall
			}
			f.answer(waitRoute, tt.first)
			got := run(t, "gantry", f.Host, "run", "busybox")
			got.Err = strings.TrimPrefix(got.Err, "WARNING: beware\n")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			var asked []string
			for _, c := range f.take() {
				if strings.HasSuffix(c.Path, "/wait") {
					asked = append(asked, c.Query.Get("condition"))
				}
			}
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A signal that comes while the engine creates the container is for the container,
// once it runs: it had no use for it before.
func TestSignalBeforeTheContainer(t *testing.T) {
	f := newFake(t)
	killed := make(chan bool)
	f.startsItself(func(c net.Conn) { <-killed })
	var late bool
	f.answer("POST /containers/"+fakeID+"/kill", answer{status: 204, then: func() {
		late = slices.ContainsFunc(f.calls, func(c call) bool { return strings.HasSuffix(c.Path, "/wait") })
		close(killed)
	}})
	f.answer(waitRoute, answer{body: `{"StatusCode":143}`, stall: killed})
	a := f.answers[createRoute]
	a.then = func() {
		awaitSignals(t, f.asking().pid)
		syscall.Kill(f.asking().pid, syscall.SIGTERM)
	}
	f.answer(createRoute, a)
	if got := run(t, "gantry", f.Host, "run", "busybox"); got.Code != 143 || !late {
		t.Errorf("%+v, and the container was started before: %v", got, late)
	}
}

// A signal ends a command that waits for an engine to create its container.
func TestSignalWithoutContainer(t *testing.T) {
	f := newFake(t)
	over := make(chan bool)
	defer close(over)
	cmd := command(t, "gantry", f.Host, "run", "busybox")
	f.answer(createRoute, answer{by: func(c call) answer {
		awaitSignals(t, c.pid)
		syscall.Kill(c.pid, syscall.SIGTERM)
		<-over
		return answer{broken: true}
	}})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hangs := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer hangs.Stop()
	cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
}

// What is read without encoding/json is what that reads.
func TestReadCreated(t *testing.T) {
	for _, text := range []string{
		`{"Id":"` + fakeID + `","Warnings":[]}`, `{"Id":"` + fakeID + `","Warnings":["x"]}`, `{"Id":"abc\u0041","Warnings":[]}`,
		`{"Id":"ab","x":"","Warnings":[]}`, `{"Warnings":null,"Id":"ab"}`, `{"Id":"ab"`, ``,
	} {
		var want container.CreateResponse
		failed := json.Unmarshal([]byte(text), &want)
		got, err := readCreated(text)
		if got.ID != want.ID || len(got.Warnings) != len(want.Warnings) || (err == nil) != (failed == nil) {
			t.Errorf("%s: got %+v, %v, want %+v, %v", text, got, err, want, failed)
		}
	}
}
