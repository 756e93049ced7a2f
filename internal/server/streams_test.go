package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/net/websocket"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/container"
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

// dial sends a raw request and returns the head of the answer and the
// connection behind it.
func dial(t *testing.T, address, request string) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: "HEAD"}) // HEAD: what follows is not a body
	if err != nil {
		t.Fatal(err)
	}
	return resp, conn, r
}

const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"

func TestHijack(t *testing.T) {
	for _, tt := range []struct {
		name, path, header string
		tty                bool
		status             int
		media              string
	}{
		{"frames", "/v1.42", upgrade, false, 101, "application/vnd.docker.multiplexed-stream"},
		{"terminal", "/v1.42", upgrade, true, 101, "application/vnd.docker.raw-stream"},
		{"old", "/v1.41", upgrade, false, 101, "application/vnd.docker.raw-stream"},
		{"no upgrade", "/v1.51", "", false, 200, "application/vnd.docker.raw-stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.containers.attach = func(h container.Hijack) error {
				conn, unread, err := h(tt.tty)
				if err != nil {
					return err
				}
				defer conn.Close()
				rest := make([]byte, 8-len(unread))
				if _, err := io.ReadFull(conn, rest); err != nil {
					return err
				}
				_, err = conn.Write(append(unread, rest...))
				return err
			}
			s := f.listen(t)
			// The input follows the head at once, as eager clients do.
			resp, conn, r := dial(t, s.Listener.Addr().String(),
				"POST "+tt.path+"/containers/c/attach?stream=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"+tt.header+"\r\nearl")
			if _, err := io.WriteString(conn, "yin."); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != tt.media {
				t.Errorf("got %d %v", resp.StatusCode, resp.Header)
			}
			data, err := io.ReadAll(r)
			if string(data) != "earlyin." || err != nil {
				t.Errorf("got %q %v", data, err)
			}
		})
	}
}

// docker-py reads the head of the answer through a buffer and takes the socket
// from below it: what came together with the head is lost to it.
func TestOutputWaitsForTheHeadToBeRead(t *testing.T) {
	f := newFixture()
	wrote := make(chan struct{})
	f.containers.attach = func(h container.Hijack) error {
		conn, _, err := h(true)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "output")
		close(wrote)
		return err
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(f.Server)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /containers/c/attach?stream=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"+upgrade+"\r\n")
	waitReadable(t, conn.(*net.UnixConn))
	select { // a client that is slow to run
	case <-wrote:
	case <-time.After(headPatience / 4):
	}
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if head := string(buffer[:n]); err != nil || !strings.HasSuffix(head, "\r\n\r\n") {
		t.Errorf("read %q %v, want the head alone", head, err)
	}
	if rest, err := io.ReadAll(conn); string(rest) != "output" || err != nil {
		t.Errorf("then %q %v", rest, err)
	}
}

// waitReadable returns when something can be read, without reading it.
func waitReadable(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dockerode sends its options as a body with an attach. They are no input.
func TestBodyOfAnAttachIsNoInput(t *testing.T) {
	f := newFixture()
	f.containers.attach = func(h container.Hijack) error {
		conn, unread, err := h(true)
		if err != nil {
			return err
		}
		defer conn.Close()
		rest := make([]byte, 5-len(unread))
		if _, err := io.ReadFull(conn, rest); err != nil {
			return err
		}
		_, err = conn.Write(append(unread, rest...))
		return err
	}
	s := f.listen(t)
	_, _, r := dial(t, s.Listener.Addr().String(),
		"POST /containers/c/attach?stream=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15\r\n"+upgrade+"\r\n"+`{"stream":true}`+"typed")
	if data, err := io.ReadAll(r); string(data) != "typed" || err != nil {
		t.Errorf("got %q %v", data, err)
	}
}

// A start waits for a client that is being attached. One that does not send the
// body it speaks of must not come that far.
func TestBodyOfAnAttachIsReadFirst(t *testing.T) {
	f := newFixture()
	f.containers.attach = func(h container.Hijack) error {
		t.Error("the container was asked for before the body was there")
		return errs.NotFound("No such container: c")
	}
	s := f.listen(t)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /containers/c/attach?stream=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n"+upgrade+"\r\n{")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn) // the answer, when it is over
}

func TestAttachErrorIsAnAnswer(t *testing.T) {
	f := newFixture()
	f.containers.attach = func(container.Hijack) error { return errs.NotFound("No such container: c") }
	wantError(t, f.ask("POST", "/containers/c/attach?stream=1", ""), 404, "No such container: c")
}

// The body of the request must not come out as input of the command.
func TestExecStart(t *testing.T) {
	f := newFixture()
	f.containers.exec = &ctypes.ExecInspectResponse{ID: "e"}
	f.containers.attach = func(h container.Hijack) error {
		conn, unread, err := h(false)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(append([]byte("in:"), unread...))
		return err
	}
	s := f.listen(t)
	body := `{"Detach":false,"Tty":false}` + "\n  \n"
	resp, _, r := dial(t, s.Listener.Addr().String(), "POST /v1.51/exec/e/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 32\r\n"+upgrade+"\r\n"+body+"xyz")
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	data, err := io.ReadAll(r)
	if got := string(data); !strings.HasPrefix("in:xyz", got) || !strings.HasPrefix(got, "in:") || err != nil {
		t.Errorf("got %q %v", data, err)
	}
}

// A client that asked for a stream cannot show an error that comes instead of it.
func TestExecThatCannotStartSaysSoOnTheStream(t *testing.T) {
	f := newFixture()
	f.containers.exec = &ctypes.ExecInspectResponse{ID: "e"}
	f.containers.attach = func(container.Hijack) error { return errs.InvalidArgument("no user named bob") }
	s := f.listen(t)
	resp, _, r := dial(t, s.Listener.Addr().String(), "POST /v1.51/exec/e/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"+upgrade+"\r\n{}")
	var stdout bytes.Buffer
	_, err := stdcopy.StdCopy(&stdout, io.Discard, r)
	if resp.StatusCode != 101 || stdout.String() != "no user named bob\r\n" || err != nil {
		t.Errorf("got %s %q %v", resp.Status, stdout.String(), err)
	}
	f.containers.err = errs.InvalidArgument("no user named bob")
	wantError(t, f.ask("POST", "/exec/e/start", `{"Detach":true}`), 400, "no user named bob")
	f.containers.attach = func(container.Hijack) error { return errs.Conflict("exec command e is already running") }
	wantError(t, f.ask("POST", "/exec/e/start", `{}`), 409, "exec command e is already running")
	f.containers.exec = nil
	wantError(t, f.ask("POST", "/exec/e/start", `{}`), 404, "No such exec instance: e")
	wantError(t, f.ask("POST", "/containers/c/exec", `{"Cmd":[]}`), 400, "No exec command specified")
}

func TestAttachWebSocket(t *testing.T) {
	f := newFixture()
	f.containers.attach = func(h container.Hijack) error {
		conn, _, err := h(false)
		if err != nil {
			return err
		}
		defer conn.Close()
		in := make([]byte, 2)
		if _, err := io.ReadFull(conn, in); err != nil {
			return err
		}
		// Two frames, torn where it hurts.
		frames := append([]byte{1, 0, 0, 0, 0, 0, 0, 3, 'o', 'u', 't', 2, 0, 0, 0, 0, 0, 0, 5, 'e', 'r', 'r'}, in...)
		for _, part := range [][]byte{frames[:5], frames[5:10], frames[10:15], frames[15:]} {
			if _, err := conn.Write(part); err != nil {
				return err
			}
		}
		return nil
	}
	s := f.listen(t)
	ws, err := websocket.Dial("ws"+strings.TrimPrefix(s.URL, "http")+"/v1.51/containers/c/attach/ws?stream=1", "", s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := ws.Write([]byte("in")); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(ws)
	if string(data) != "outerrin" || err != nil {
		t.Errorf("got %q %v", data, err)
	}
	f.containers.attach = func(container.Hijack) error { return errs.NotFound("No such container: c") }
	wantError(t, f.ask("GET", "/containers/c/attach/ws", ""), 404, "No such container: c")
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
