package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
)

func logLines() []*logs.Message {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return []*logs.Message{
		{Stream: "stdout", Time: at, Line: []byte("out\n"), Attrs: map[string]string{"b": "2 3", "a": "1"}},
		{Stream: "stderr", Time: at, Line: []byte("err\n")},
	}
}

func TestLogs(t *testing.T) {
	const all = "/logs?stdout=1&stderr=1"
	for _, tt := range []struct {
		name, path      string
		tty             bool
		out, err, media string
	}{
		{"frames", "/v1.51/containers/c" + all, false, "out\n", "err\n", "application/vnd.docker.multiplexed-stream"},
		{"frames, raw by name", "/v1.41/containers/c" + all, false, "out\n", "err\n", "application/vnd.docker.raw-stream"},
		{"terminal", "/containers/c" + all, true, "out\nerr\n", "", "application/vnd.docker.raw-stream"},
		{"timestamps", "/containers/c" + all + "&timestamps=1", false, "2026-01-02T03:04:05.000000006Z out\n", "2026-01-02T03:04:05.000000006Z err\n", "application/vnd.docker.multiplexed-stream"},
		{"details", "/containers/c" + all + "&details=1&timestamps=1", false, "2026-01-02T03:04:05.000000006Z a=1,b=2+3 out\n", "2026-01-02T03:04:05.000000006Z  err\n", "application/vnd.docker.multiplexed-stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.containers.logs, f.containers.tty = logLines(), tt.tty
			w := f.ask("GET", tt.path, "")
			if w.Code != 200 || w.Header().Get("Content-Type") != tt.media {
				t.Fatalf("got %d %v", w.Code, w.Header())
			}
			var stdout, stderr bytes.Buffer
			if tt.tty {
				stdout = *w.Body
			} else if _, err := stdcopy.StdCopy(&stdout, &stderr, w.Body); err != nil {
				t.Fatal(err)
			}
			if stdout.String() != tt.out || stderr.String() != tt.err {
				t.Errorf("got %q and %q", stdout.String(), stderr.String())
			}
		})
	}
}

func TestLogsErrors(t *testing.T) {
	f := newFixture()
	wantError(t, f.ask("GET", "/containers/c/logs", ""), 400, "Bad parameters: you must choose at least one stream")
	wantError(t, f.ask("GET", "/containers/c/logs?stdout=1&since=yesterday", ""), 400,
		`invalid value for 'since': "yesterday" is not a number of seconds since 1970`)
	f.containers.logsEnd = errs.NotImplemented("configured logging driver does not support reading")
	wantError(t, f.ask("GET", "/containers/c/logs?stdout=1", ""), 501, "configured logging driver does not support reading")
	wantError(t, f.ask("GET", "/containers/c/logs?stdout=1&follow=1", ""), 501, "configured logging driver does not support reading")

	f.containers.logs, f.containers.logsEnd = logLines(), errors.New("the disk is gone")
	w := f.ask("GET", "/containers/c/logs?stdout=1", "")
	_, err := stdcopy.StdCopy(io.Discard, io.Discard, w.Body)
	if w.Code != 200 || err == nil || !strings.Contains(err.Error(), "Error grabbing logs: the disk is gone") {
		t.Errorf("late error: %d %v", w.Code, err)
	}
	f.containers.err = errs.NotFound("No such container: c")
	wantError(t, f.ask("GET", "/containers/c/logs?stdout=1", ""), 404, "No such container: c")
}

// A follower of a silent container gets the head of the answer, or the client
// would hang before it can be told to stop.
func TestFollowedLogsBeginAndEndWithTheDaemon(t *testing.T) {
	f := newFixture()
	f.containers.follow = make(chan struct{})
	s := f.listen(t)
	resp, err := http.Get(s.URL + "/containers/c/logs?stdout=1&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	f.EndStreams()
	if data, err := io.ReadAll(resp.Body); len(data) != 0 || err != nil {
		t.Errorf("got %q %v", data, err)
	}
}

func TestWait(t *testing.T) {
	f := newFixture()
	f.containers.exit = make(chan ctypes.WaitResponse, 1)
	s := f.listen(t)
	resp, err := http.Post(s.URL+"/v1.51/containers/c/wait?condition=next-exit", "", nil) // returns with the head
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	f.containers.exit <- ctypes.WaitResponse{StatusCode: 137}
	data, err := io.ReadAll(resp.Body)
	if err != nil || string(data) != `{"StatusCode":137}`+"\n" {
		t.Errorf("got %q %v", data, err)
	}
	wantError(t, f.ask("POST", "/containers/c/wait?condition=never", ""), 400, `invalid condition: "never"`)
	f.containers.exit <- ctypes.WaitResponse{Error: &ctypes.WaitExitError{Message: "x"}}
	if w := f.ask("POST", "/v1.33/containers/c/wait?condition=removed", ""); w.Body.Len() != 0 {
		t.Errorf("1.33 is told of an error by an empty answer: %q", w.Body)
	}
}

func TestStats(t *testing.T) {
	f := newFixture()
	w := f.ask("GET", "/containers/c/stats?stream=0", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || strings.Contains(w.Body.String(), "os_type") {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	f.containers.err = errs.NotFound("No such container: c")
	wantError(t, f.ask("GET", "/containers/c/stats", ""), 404, "No such container: c")
}

func TestEvents(t *testing.T) {
	f := newFixture()
	f.system.events = make(chan events.Message, 2)
	f.system.past = []events.Message{{Type: "container", Action: "start", Actor: events.Actor{ID: "c", Attributes: map[string]string{"image": "a&b"}}, TimeNano: 1e9}}
	f.system.events <- events.Message{Type: "image", Action: "create", Actor: events.Actor{ID: "i"}}
	close(f.system.events)
	s := f.listen(t)
	get := func(path string) string {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	start := `{"status":"start","id":"c","from":"a&b","Type":"container","Action":"start","Actor":{"ID":"c","Attributes":{"image":"a&b"}},"timeNano":1000000000}` + "\n"
	if got := get("/v1.45/events"); got != start {
		t.Errorf("1.45 knows no creation of images: got %q", got)
	}
	if got := get("/events?until=0.5&since=0.1"); got != "" {
		t.Errorf("an event after the time: %q", got)
	}
	if got := get("/events?until=0&since=0"); got != "" {
		t.Errorf("until 1970: %s", got)
	}
	if got := get("/events?until=2"); got != start {
		t.Errorf("got %q", got)
	}
	wantError(t, f.ask("GET", "/events?since=2&until=1", ""), 400, "`since` time (2) cannot be after `until` time (1)")
	wantError(t, f.ask("GET", "/events?filters={", ""), 400, "invalid filter: unexpected end of JSON input")
}

func TestArchive(t *testing.T) {
	f := newFixture()
	for _, method := range []string{"HEAD", "GET"} {
		w := f.ask(method, "/containers/c/archive?path=/etc", "")
		data, err := base64.StdEncoding.DecodeString(w.Header().Get("X-Docker-Container-Path-Stat"))
		if err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %v", method, w.Code, err)
		}
		var stat ctypes.PathStat
		if err := json.Unmarshal(data, &stat); err != nil || stat.Name != "/etc" || stat.Size != 7 {
			t.Errorf("%s: %s", method, data)
		}
		if method == "GET" && (w.Body.String() != "tar" || w.Header().Get("Content-Type") != "application/x-tar") {
			t.Errorf("got %q %v", w.Body, w.Header())
		}
	}
	wantError(t, f.ask("GET", "/containers/c/archive", ""), 400, "bad parameter: path cannot be empty")
	f.containers.err = errs.NotFound("Could not find the file /x in container c")
	wantError(t, f.ask("GET", "/containers/c/archive?path=/x", ""), 404, "Could not find the file /x in container c")
}

// Half an export must not look like a whole one.
func TestBrokenAnswerIsCutOff(t *testing.T) {
	f := newFixture()
	f.containers.export = func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
		return errors.New("the disk is gone")
	}
	s := f.listen(t)
	resp, err := http.Get(s.URL + "/containers/c/export")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %d bytes and %v", n, err)
	}
	f.containers.export = func(io.Writer) error { return errs.NotFound("No such container: c") }
	wantError(t, f.ask("GET", "/containers/c/export", ""), 404, "No such container: c")
}

func TestParameters(t *testing.T) {
	f := newFixture()
	for _, tt := range []struct{ method, path, message string }{
		{"GET", "/containers/json?limit=many", `invalid value for "limit": "many" is not a whole number`},
		{"GET", "/containers/json?filters=[", "invalid filter: unexpected end of JSON input"},
		{"GET", "/containers/json?filters=%zz", `invalid URL escape "%zz"`},
		{"POST", "/containers/c/stop?t=soon", `invalid value for "t": "soon" is not a whole number`},
		{"POST", "/containers/c/resize?h=a&w=1", `invalid resize height "a": invalid syntax`},
		{"POST", "/containers/c/resize?h=1&w=-1", `invalid resize width "-1": value out of range`},
		{"POST", "/containers/c/resize?h=1&w=4294967296", `invalid resize width "4294967296": value out of range`},
		{"POST", "/containers/c/resize", `invalid resize height "": invalid syntax`},
		{"GET", "/networks?filters={\"x\":[\"y\"]}", "invalid filter 'x'"},
		{"GET", "/images/i/json?platform={}", "both OS and Architecture must be provided"},
		{"GET", "/images/i/json?platform={\"os\":\"linux\",\"architecture\":\"arm64\"}&manifests=1", "conflicting options: manifests and platform options cannot both be set"},
		{"GET", "/system/df?type=thing", "unknown object type: thing"},
		{"DELETE", "/images/%20", "image name cannot be blank"},
		{"POST", "/images/i/tag?repo=UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"},
		{"POST", "/images/i/tag", "a repository to tag the image with is needed"},
	} {
		wantError(t, f.ask(tt.method, tt.path, ""), 400, tt.message)
	}
	f.ask("POST", "/v1.41/containers/c/stop?t=7&signal=INT", "")
	if f.containers.timeout == nil || *f.containers.timeout != 7 || f.containers.signal != "" {
		t.Errorf("1.41 has no signal: %v %q", f.containers.timeout, f.containers.signal)
	}
	// Parameters may come in a form, as curl -d sends them.
	f.ask("POST", "/containers/c/stop", "t=8&signal=INT", "Content-Type", "application/x-www-form-urlencoded")
	if f.containers.timeout == nil || *f.containers.timeout != 8 || f.containers.signal != "INT" {
		t.Errorf("a form: %v %q", f.containers.timeout, f.containers.signal)
	}
	wantError(t, f.ask("POST", "/containers/c/start", `{"Binds":[]}`), 400,
		"starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	if w := f.ask("POST", "/containers/c/resize?h=1&w=2", ""); w.Code != 200 {
		t.Errorf("resize: %d", w.Code)
	}
	f.ask("GET", "/containers/json?all=True&size=no&filters={\"status\":{\"exited\":true}}", "")
	if l := f.containers.listed; !l.All || l.Size || !l.Filters.ExactMatch("status", "exited") {
		t.Errorf("listed %+v", l)
	}
}

func TestServeStops(t *testing.T) {
	f := newFixture()
	f.containers.exit = make(chan ctypes.WaitResponse)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, time.Minute, l) }()
	resp, err := http.Post("http://"+l.Addr().String()+"/containers/c/wait", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if data, _ := io.ReadAll(resp.Body); len(data) != 0 {
		t.Errorf("the wait was answered: %q", data)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the server does not stop")
	}
}
