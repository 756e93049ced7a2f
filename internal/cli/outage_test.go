package cli

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

const (
	waitRoute = "POST /containers/" + fakeID + "/wait"
	cut       = `{"Status` // of an answer whose engine died
)

// impatient has a command wait for an engine no longer than this.
func impatient(cmd *exec.Cmd, d time.Duration) *exec.Cmd {
	cmd.Env = append(cmd.Env, "GANTRY_TEST_ENGINE_RETURN="+d.String())
	return cmd
}

// die ends the engine, together with the answers that wait for stall. Streams are
// not the engine's.
func (f *fake) die(stall chan bool) {
	f.Listener.Close()
	close(stall)
	f.CloseClientConnections()
}

// The engine dies while a client is attached, and none comes back: a sentence
// and a code that is not the container's.
func TestEngineDies(t *testing.T) {
	for _, command1 := range []string{"run", "run --rm", "start -a", "attach", "wait", "exec"} {
		t.Run(command1, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			waited, started, stall := make(chan bool), make(chan bool), make(chan bool)
			stream := func(c net.Conn) {
				if command1 != "exec" {
					<-waited
				}
				if command1 != "exec" && command1 != "attach" {
					<-started
				}
				c.Write(frame(1, "so far\n"))
				f.die(stall)
			}
			f.answer(attachRoute, answer{stream: stream})
			f.answer("POST /exec/e1/start", answer{stream: stream})
			f.answer(waitRoute, answer{stall: stall, then: func() { close(waited) }, headed: func() {
				if command1 == "wait" {
					go f.die(stall)
				}
			}})
			f.answer("POST /containers/"+fakeID+"/start", answer{status: 204, then: func() { close(started) }})
			args := append(strings.Fields(command1), fakeID)
			if command1 == "exec" {
				args = append(args, "true")
			}
			got := finishRun(t, impatient(command(t, "gantry", f.Host, args...), 50*time.Millisecond))
			out := "so far\n"
			if command1 == "wait" {
				out = ""
			}
			if got.Code != 125 || got.Out != out || !strings.Contains(got.Err, "the engine is gone and none came back within 50ms") {
				t.Errorf("%+v", got)
			}
		})
	}
}

// The engine is replaced while a client is attached: the next one knows the exit
// code, and is asked for what can still be answered.
func TestNextEngine(t *testing.T) {
	for command1, want := range map[string][]string{
		"run":      {"next-exit", "not-running"},
		"run --rm": {"removed", "removed"},
		"start -a": {"next-exit", "not-running"},
		"attach":   {"not-running", "not-running"},
		"wait":     {"", ""},
	} {
		t.Run(command1, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.answer(attachRoute, answer{stream: func(c net.Conn) { c.Write(frame(1, "all\n")) }})
			stall := make(chan bool) // the head of the answer goes out by itself
			f.answer(waitRoute, answer{body: cut, stall: stall, then: func() {
				f.answers[waitRoute] = answer{status: 200, body: `{"StatusCode":7}`, then: func() {
					started := slices.ContainsFunc(f.calls, func(c call) bool { return strings.HasSuffix(c.Path, "/start") })
					if want[0] == "next-exit" && !started {
						t.Error("asked whether it runs before it was started")
					}
				}}
			}})
			close(stall)
			got := run(t, "gantry", f.Host, append(strings.Fields(command1), fakeID)...)
			if command1 == "wait" {
				if got != (result{"7\n", "", 0}) {
					t.Errorf("%+v", got)
				}
			} else if got != (result{"all\n", "", 7}) {
				t.Errorf("%+v", got)
			}
			var conditions []string
			for _, c := range f.take() {
				if strings.HasSuffix(c.Path, "/wait") {
					conditions = append(conditions, c.Query.Get("condition"))
				}
			}
			if diff := cmp.Diff(want, conditions); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The engine dies while it starts a container: the next one knows how far it got.
func TestNextEngineKnowsTheStart(t *testing.T) {
	for started, want := range map[string]result{
		"2026-01-01T00:00:00Z": {"all\n", "", 7},
		neverStarted:           {"", "gantry: the engine at HOST closed the connection without an answer\n\nRun 'gantry run --help' for more information\n", 125},
	} {
		f := newFake(t)
		f.answer(attachRoute, answer{stream: func(c net.Conn) {
			if started != neverStarted {
				c.Write(frame(1, "all\n"))
			}
		}})
		f.answer(waitRoute, answer{body: `{"StatusCode":7}`})
		f.answer("POST /containers/"+fakeID+"/start", answer{broken: true})
		f.answer("GET /containers/"+fakeID+"/json", answer{body: `{"Id":"` + fakeID + `","State":{"StartedAt":"` + started + `"}}`})
		got := run(t, "gantry", f.Host, "run", "busybox")
		got.Err = strings.ReplaceAll(got.Err, f.Host, "HOST")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("started %s: %s", started, diff)
		}
	}
}

// A container that went while no engine was there ended somehow, not with 0.
func TestGoneWithTheEngine(t *testing.T) {
	f := newFake(t)
	f.answer(attachRoute, answer{stream: func(c net.Conn) {}})
	f.answer(waitRoute, answer{body: cut, then: func() {
		f.answers[waitRoute] = answer{status: 404, body: `{"message":"No such container"}`}
	}})
	got := run(t, "gantry", f.Host, "run", "--rm", "busybox")
	if got.Code != 125 || !strings.Contains(got.Err, "removed while no engine was there to say how it ended") {
		t.Errorf("%+v", got)
	}
}

// A stream that lives keeps the command, and a person can still end it.
func TestInterruptWithoutEngine(t *testing.T) {
	f := newFake(t)
	attached, away, over := make(chan bool), make(chan bool), make(chan bool)
	defer close(over)
	f.answer(attachRoute, answer{stream: func(c net.Conn) {
		close(attached)
		<-over
	}})
	stall := make(chan bool)
	f.answer(waitRoute, answer{stall: stall})
	f.answer("POST /containers/"+fakeID+"/start", answer{status: 204, then: func() { close(away) }})
	cmd := impatient(command(t, "gantry", f.Host, "run", "busybox"), time.Millisecond)
	go func() {
		<-attached
		<-away
		f.die(stall)
		for cmd.Process.Signal(syscall.SIGTERM) == nil { // until it has ended
			time.Sleep(10 * time.Millisecond)
		}
	}()
	got := finishRun(t, cmd)
	if got.Code != 128+15 || !strings.Contains(got.Err, "there is no engine to pass the signal on") {
		t.Errorf("%+v", got)
	}
}

// Who stopped the engine does not want a command that was there before to start
// it again.
func TestNoSurprise(t *testing.T) {
	f := newFake(t)
	asked := 0
	c, err := client.New(client.Options{Host: f.Host, Revive: func(context.Context, *client.ConnectError) error {
		asked++
		return errors.New("no")
	}})
	if err != nil {
		t.Fatal(err)
	}
	request := func() error {
		return c.JSON(t.Context(), &client.Request{Method: "GET", Path: "/info"}, nil)
	}
	if err := request(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	f.Listener.Close()
	if err := request(); !client.IsLost(err) || asked != 0 {
		t.Errorf("an engine was asked for %d times, and then: %v", asked, err)
	}
}
