package container_test

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/container"
)

// runs has Run make a container and returns its ID, what its client reads to the
// end of the stream, and the error of Run. told is called before the start.
func runs(t *testing.T, m *container.Manager, o *container.CreateOptions, told func(id string)) (id, out string, err error) {
	t.Helper()
	ends := socketPair(t)
	defer ends[0].Close()
	read := make(chan string, 1)
	go func() {
		ends[0].SetReadDeadline(time.Now().Add(20 * time.Second))
		out, err := io.ReadAll(ends[0])
		if err != nil {
			t.Errorf("the client read %q and then: %v", out, err)
		}
		read <- string(out)
	}()
	err = m.Run(t.Context(), o, &container.RunOptions{
		Attach: container.AttachOptions{Stream: true, Stdout: true},
		Created: func(answer api.CreateResponse, _ bool) (net.Conn, []byte, error) {
			id = answer.ID
			told(id)
			return ends[1], nil, nil
		},
	})
	return id, <-read, err
}

func runOptions(host *api.HostConfig, argv ...string) *container.CreateOptions {
	if host.NetworkMode == "" {
		host.NetworkMode = "none"
	}
	return &container.CreateOptions{Config: &api.Config{Image: "busybox", Cmd: argv, Tty: true}, HostConfig: host}
}

// firstExit asks how a container ended.
func firstExit(t *testing.T, m *container.Manager, id string) (api.WaitResponse, error) {
	t.Helper()
	ended, err := m.Wait(t.Context(), id, container.WaitConditionFirstExit)
	if err != nil {
		return api.WaitResponse{}, err
	}
	select {
	case answer := <-ended:
		return answer, nil
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
		return api.WaitResponse{}, nil
	}
}

// Whenever it is asked for, the end of the first run is the end of the first run.
func TestFirstExit(t *testing.T) {
	e := newEngine(t)
	m := e.Containers
	for _, rm := range []bool{false, true} {
		early := make(chan int64, 1)
		id, out, err := runs(t, m, runOptions(&api.HostConfig{AutoRemove: rm}, "sh", "-c", "echo hello; test -e /again || { touch /again; exit 7; }"), func(id string) {
			go func() {
				answer, err := firstExit(t, m, id) // it waits for the start
				if err != nil {
					t.Error(err)
				}
				early <- answer.StatusCode
			}()
		})
		if err != nil || out != "hello\r\n" {
			t.Errorf("the client read %q; %v", out, err)
		}
		if code := <-early; code != 7 {
			t.Errorf("who was early got %d", code)
		}
		if answer, err := firstExit(t, m, id); err != nil || answer.StatusCode != 7 || answer.Error != nil {
			t.Errorf("who was late got %+v, %v", answer, err)
		}
		if rm {
			continue
		}
		ended, err := m.Wait(t.Context(), id, api.WaitConditionNextExit)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if answer := <-ended; answer.StatusCode != 0 {
			t.Fatalf("the second run ended with %d", answer.StatusCode)
		}
		if answer, err := firstExit(t, m, id); err != nil || answer.StatusCode != 7 {
			t.Errorf("after the second run: %+v, %v", answer, err)
		}
		if err := m.Remove(t.Context(), id, container.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		if answer, err := firstExit(t, m, id); err != nil || answer.StatusCode != 7 {
			t.Errorf("after its removal: %+v, %v", answer, err)
		}
		if _, err := m.Wait(t.Context(), id, api.WaitConditionNotRunning); !errdefs.IsNotFound(err) {
			t.Errorf("one that did not remove itself is waited for: %v", err)
		}
	}
}

// A start that fails ends the client's stream, whether or not the shim was asked,
// and is the answer to whoever waits; a container that removes itself is gone then.
func TestRunFails(t *testing.T) {
	e := newEngine(t)
	m := e.Containers
	stopped := create(t, m, "true")
	for name, tt := range map[string]struct {
		network api.NetworkMode
		argv    string
		is      func(error) bool
	}{
		"by the shim":  {"none", "nosuch", errdefs.IsInvalidArgument},
		"before it is": {api.NetworkMode("container:" + stopped), "true", errdefs.IsConflict},
	} {
		for _, rm := range []bool{false, true} {
			early := make(chan error, 1)
			id, out, err := runs(t, m, runOptions(&api.HostConfig{AutoRemove: rm, NetworkMode: tt.network}, tt.argv), func(id string) {
				go func() {
					_, err := firstExit(t, m, id)
					if _, lookup := m.Tty(id); rm && !errdefs.IsNotFound(lookup) {
						t.Errorf("%s: it is still there when its client is told", name)
					}
					early <- err
				}()
			})
			if !tt.is(err) || out != "" {
				t.Errorf("%s: %v; the client read %q", name, err, out)
				continue
			}
			if got := <-early; got == nil || got.Error() != err.Error() || !tt.is(got) {
				t.Errorf("%s: who was early got %v", name, got)
			}
			if _, got := firstExit(t, m, id); got == nil || got.Error() != err.Error() || !tt.is(got) {
				t.Errorf("%s: who was late got %v", name, got)
			}
		}
	}
}

// A container of which nobody knows that it is being started is not waited for.
func TestFirstExitOfWhatWasOnlyCreated(t *testing.T) {
	m := newEngine(t).Containers
	id := create(t, m, "true")
	if _, err := firstExit(t, m, id); !errdefs.IsConflict(err) {
		t.Errorf("got %v", err)
	}
	if err := m.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if answer, err := firstExit(t, m, id); err != nil || answer.StatusCode != 0 {
		t.Errorf("got %+v, %v", answer, err)
	}
}

// A client that is gone when its container exists has none started.
func TestRunWithoutClient(t *testing.T) {
	m := newEngine(t).Containers
	var id string
	err := m.Run(t.Context(), runOptions(&api.HostConfig{}, "true"), &container.RunOptions{
		Created: func(answer api.CreateResponse, _ bool) (net.Conn, []byte, error) {
			id = answer.ID
			return nil, nil, io.ErrClosedPipe
		},
	})
	if err != io.ErrClosedPipe {
		t.Error(err)
	}
	if c, err := m.Inspect(t.Context(), id, false); err != nil || c.State.Status != api.StateCreated {
		t.Errorf("%+v, %v", c, err)
	}
}

// Tools that follow the events see the same order as from a client that asks for
// each.
func TestRunEvents(t *testing.T) {
	e := newEngine(t)
	all := e.Events.Subscribe(time.Time{}, nil)
	defer all.Close()
	if _, _, err := runs(t, e.Containers, runOptions(&api.HostConfig{AutoRemove: true}, "true"), func(string) {}); err != nil {
		t.Fatal(err)
	}
	var got []events.Action
	for len(got) < 5 {
		select {
		case m := <-all.C:
			if m.Type == events.ContainerEventType {
				got = append(got, m.Action)
			}
		case <-time.After(20 * time.Second):
			t.Fatal(got)
		}
	}
	if want := []events.Action{events.ActionCreate, events.ActionAttach, events.ActionStart, events.ActionDie, events.ActionDestroy}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
