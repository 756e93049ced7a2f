package server

import (
	"bufio"
	"bytes"
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
	"golang.org/x/net/websocket"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
)

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
