package server

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ctypes "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
)

const runnable = `{"Image":"busybox","Cmd":["true"]}`

func runRequest(version, headers string) string {
	return "POST /" + version + "/containers/create?name=n HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
		headers + "Content-Length: " + strconv.Itoa(len(runnable)) + "\r\n\r\n" + runnable
}

const (
	askedRun     = "Gantry-Run: stream=1&stdin=1&stderr=1&detachKeys=ctrl-x\r\n"
	askedUpgrade = "Connection: Upgrade\r\nUpgrade: gantry-run\r\n"
)

// A client that says what follows is told of the container before it runs, and has
// its streams on the same connection.
func TestRun(t *testing.T) {
	f := newFixture()
	var attach container.AttachOptions
	f.containers.run = func(o *container.CreateOptions, r *container.RunOptions) error {
		attach = r.Attach
		conn, unread, err := r.Created(ctypes.CreateResponse{ID: "abc", Warnings: []string{"é\n"}}, false)
		if err != nil {
			return err
		}
		defer conn.Close()
		if len(unread) > 0 || o.Name != "n" || o.Config.Image != "busybox" {
			t.Errorf("%q was read, and %+v created", unread, o)
		}
		io.Copy(conn, conn)
		return errs.System("too late to tell")
	}
	s := f.listen(t)
	resp, conn, r := dial(t, s.Listener.Addr().String(), runRequest("v1.51", askedRun+askedUpgrade))
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "gantry-run" || resp.Header.Get("Content-Type") != "application/vnd.docker.multiplexed-stream" {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
	var created ctypes.CreateResponse
	if err := json.Unmarshal([]byte(resp.Header.Get("Gantry-Created")), &created); err != nil || created.ID != "abc" || len(created.Warnings) != 1 || created.Warnings[0] != "é\n" {
		t.Errorf("%+v, %v", created, err)
	}
	io.WriteString(conn, "in")
	conn.(*net.TCPConn).CloseWrite()
	if out, err := io.ReadAll(r); string(out) != "in" || err != nil {
		t.Errorf("%q came back, %v", out, err)
	}
	if want := (container.AttachOptions{Stream: true, Stdin: true, Stderr: true, DetachKeys: "ctrl-x"}); attach != want {
		t.Errorf("attached with %+v", attach)
	}
}

// A client is promised to be told of the end on its stream only if it asked for that,
// and where it can be: an older client gets what it got.
func TestRunTellsTheEnd(t *testing.T) {
	for query, want := range map[string][2]bool{ // asked for, and promised
		"stdout=1&end=1":         {true, true},
		"stdout=1":               {false, false},
		"stdin=1&stdout=1&end=1": {true, false},
	} {
		for _, tty := range []bool{false, true} {
			f := newFixture()
			f.containers.run = func(_ *container.CreateOptions, r *container.RunOptions) error {
				conn, _, err := r.Created(ctypes.CreateResponse{ID: "abc"}, tty)
				if err != nil {
					return err
				}
				if r.TellEnd != want[0] {
					t.Errorf("%s: %+v", query, r)
				}
				return conn.Close()
			}
			s := f.listen(t)
			resp, _, _ := dial(t, s.Listener.Addr().String(), runRequest("v1.51", "Gantry-Run: stream=1&"+query+"\r\n"+askedUpgrade))
			if promised := resp.Header.Get("Gantry-Run") == "end=1"; resp.StatusCode != 101 || promised != (want[1] && !tty) {
				t.Errorf("%s, with a terminal: %v: got %s %v", query, tty, resp.Status, resp.Header)
			}
		}
	}
}

// What keeps a container from being created is told as ever.
func TestRunRefused(t *testing.T) {
	f := newFixture()
	f.containers.run = func(*container.CreateOptions, *container.RunOptions) error {
		return errs.NotFound("No such image: busybox")
	}
	s := f.listen(t)
	for _, headers := range []string{askedRun + askedUpgrade, "Gantry-Run: detach=1\r\n"} {
		resp, _, r := dial(t, s.Listener.Addr().String(), runRequest("v1.51", headers))
		body := make([]byte, 100)
		n, _ := r.Read(body)
		if resp.StatusCode != 404 || string(body[:n]) != `{"message":"No such image: busybox"}`+"\n" {
			t.Errorf("got %s %q", resp.Status, body[:n])
		}
	}
}

// Where it cannot be had, or is not asked for in full, a container is created and
// the client goes on by itself.
func TestRunIgnored(t *testing.T) {
	for name, tt := range map[string][2]string{
		"lost on the way": {"v1.51", askedRun},
		"something else":  {"v1.51", askedRun + "Connection: Upgrade\r\nUpgrade: tcp\r\n"},
		"not asked for":   {"v1.51", askedUpgrade},
		"old":             {"v1.29", askedRun + askedUpgrade},
		"old, detached":   {"v1.29", "Gantry-Run: detach=1\r\n"},
		"keys":            {"v1.51", "Gantry-Run: detachKeys=nosuch\r\n" + askedUpgrade},
		"nonsense":        {"v1.51", "Gantry-Run: %zz\r\n" + askedUpgrade},
	} {
		f := newFixture()
		s := f.listen(t)
		resp, _, _ := dial(t, s.Listener.Addr().String(), runRequest(tt[0], tt[1]))
		if resp.StatusCode != 201 || resp.Header.Get("Gantry-Run") != "" || f.containers.created == nil {
			t.Errorf("%s: got %s", name, resp.Status)
		}
	}
}

// A detached client has the ID while the container is being started, and then the
// outcome.
func TestRunDetached(t *testing.T) {
	for _, tt := range []struct {
		err  error
		body string
	}{{nil, "{}\n"}, {errs.InvalidArgument("no such program"), `{"message":"no such program"}` + "\n"}} {
		f := newFixture()
		told := make(chan bool)
		f.containers.run = func(_ *container.CreateOptions, r *container.RunOptions) error {
			conn, _, err := r.Created(ctypes.CreateResponse{ID: "abc"}, false)
			if conn != nil || err != nil || r.Attach.Stream {
				t.Errorf("%v, %v, %+v", conn, err, r.Attach)
			}
			<-told
			return tt.err
		}
		s := f.listen(t)
		req, _ := http.NewRequest("POST", s.URL+"/v1.51/containers/create", strings.NewReader(runnable))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Gantry-Run", "detach=1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		first := make([]byte, len(`{"Id":"abc","Warnings":[]}`+"\n"))
		if _, err := io.ReadFull(resp.Body, first); err != nil || resp.StatusCode != 201 || resp.Header.Get("Gantry-Run") != "1" || string(first) != `{"Id":"abc","Warnings":[]}`+"\n" {
			t.Errorf("got %s %q, %v", resp.Status, first, err)
		}
		close(told)
		if rest, err := io.ReadAll(resp.Body); string(rest) != tt.body || err != nil {
			t.Errorf("then came %q, %v", rest, err)
		}
	}
}

// A daemon that is to stop finishes a start that is under way, though the HTTP
// server knows nothing of its connection any more.
func TestStopWaitsForRun(t *testing.T) {
	f := newFixture()
	created, starts := make(chan bool), make(chan bool)
	over := sync.OnceFunc(func() { close(starts) })
	defer over()
	f.containers.run = func(_ *container.CreateOptions, r *container.RunOptions) error {
		conn, _, err := r.Created(ctypes.CreateResponse{ID: "abc"}, false)
		if err != nil {
			return err
		}
		defer conn.Close()
		close(created)
		<-starts
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- f.Serve(ctx, time.Minute, l) }()
	dial(t, l.Addr().String(), runRequest("v1.51", askedRun+askedUpgrade))
	<-created
	stop()
	<-f.streams.Done()
	// Serve has nothing else to wait for: without that of the start it returns now.
	for {
		if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
			break
		} else {
			c.Close()
		}
	}
	select {
	case <-stopped:
		t.Fatal("it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	over()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// Who waits for a container that is being started when the daemon stops gets no
// answer, which would be of the container: the next daemon is to be asked.
func TestStopCutsTheWaitForAStart(t *testing.T) {
	f := newFixture()
	f.containers.err = context.Canceled
	s := f.listen(t)
	f.EndStreams()
	resp, err := http.Post(s.URL+"/v1.51/containers/c/wait?condition=first-exit", "", nil)
	if err == nil {
		resp.Body.Close()
		t.Errorf("got %s", resp.Status)
	}
}
