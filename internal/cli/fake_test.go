package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be gantry: commands run as a person runs them,
// in a process of their own.
func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "docker-credential-"); ok {
		os.Exit(credentialHelper(name, os.Args[1:]))
	}
	if os.Getenv("GANTRY_TEST_MAIN") == "1" {
		if d, err := time.ParseDuration(os.Getenv("GANTRY_TEST_ENGINE_RETURN")); err == nil {
			engineReturn = d
		}
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// call is one request as the fake engine saw it, without the API version.
type call struct {
	Method, Path string
	Query        url.Values
	Body         any    // decoded JSON, or a summary of a stream
	auth         string // the header X-Registry-Auth
	raw          string // the body as it came
	run, upgrade string // the headers Gantry-Run and Upgrade
	pid          int    // of the client
}

func (c call) String() string {
	body, _ := json.MarshalIndent(c.Body, "", " ")
	return fmt.Sprintf("%s %s?%s %s", c.Method, c.Path, c.Query.Encode(), body)
}

// fake answers just enough of the API for a command to finish, and records what
// it was asked.
type fake struct {
	*httptest.Server
	Host     string
	accepted atomic.Int32 // connections

	mu      sync.Mutex // guards what follows
	calls   []call
	answers map[string]answer // by "METHOD /path", before the built-in ones
	maxAPI  string
}

type answer struct {
	status int
	body   string
	header map[string]string
	stream func(net.Conn)    // for requests that leave HTTP
	stall  chan bool         // headers are sent, and the body when it is closed
	headed func()            // runs between the two
	then   func()            // runs before the answer is sent, with the lock held
	by     func(call) answer // chooses the answer
	broken bool              // the connection ends without an answer
}

const fakeID = "4f1f5a9f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3"

func newFake(t testing.TB) *fake {
	dir, err := os.MkdirTemp("", "gantry-cli") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{Host: "unix://" + sock, answers: map[string]answer{}, maxAPI: "1.51"}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.Server.Listener.Close()
	f.Server.Listener = countingListener{l, &f.accepted}
	f.Server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, peer(c))
	}
	f.Server.Start()
	t.Cleanup(func() {
		f.Server.CloseClientConnections()
		f.Server.Close()
		os.RemoveAll(dir)
	})
	return f
}

type countingListener struct {
	net.Listener
	accepted *atomic.Int32
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

type peerKey struct{}

// peer is the process at the other end of a connection.
func peer(c net.Conn) (pid int) {
	rc, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	rc.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

func (f *fake) answer(route string, a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.status == 0 {
		a.status = 200
	}
	f.answers[route] = a
}

var versionPrefix = regexp.MustCompile(`^/v(1\.\d+)/`)

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	version := ""
	if m := versionPrefix.FindStringSubmatch(path); m != nil {
		version = m[1]
		path = path[len(m[0])-1:]
	}
	w.Header().Set("Api-Version", f.maxAPI)
	w.Header().Set("Ostype", "linux")
	if version > f.maxAPI { // all have two digits
		f.reply(w, answer{status: 400, body: `{"message":"client version ` + version + ` is too new. Maximum supported API version is ` + f.maxAPI + `"}`})
		return
	}
	c := call{Method: r.Method, Path: path, Query: r.URL.Query(), auth: r.Header.Get("X-Registry-Auth"), run: r.Header.Get("Gantry-Run"), upgrade: r.Header.Get("Upgrade")}
	c.pid, _ = r.Context().Value(peerKey{}).(int)
	raw, _ := io.ReadAll(r.Body)
	c.raw = string(raw)
	if len(raw) > 0 && json.Unmarshal(raw, &c.Body) != nil {
		c.Body = fmt.Sprintf("%d bytes", len(raw))
	}
	f.mu.Lock()
	f.calls = append(f.calls, c)
	a, ok := f.answers[r.Method+" "+path]
	if a.then != nil {
		a.then()
	}
	f.mu.Unlock()
	if a.by != nil {
		a = a.by(c)
	}
	if !ok {
		a = builtin(r.Method, path)
	}
	if strings.Contains(path, "/nosuch") {
		a = answer{status: 404, body: `{"message":"No such container: nosuch"}`}
	}
	if m, _ := c.Body.(map[string]any); m["Detach"] == true && a.stream != nil {
		a = answer{status: 200}
	}
	if a.broken {
		panic(http.ErrAbortHandler)
	}
	if a.stream != nil {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", c.upgrade)
			for k, v := range a.header {
				fmt.Fprintf(conn, "%s: %s\r\n", k, v)
			}
			fmt.Fprint(conn, "\r\n")
			a.stream(conn)
			conn.Close()
		}
		return
	}
	f.reply(w, a)
}

func (f *fake) reply(w http.ResponseWriter, a answer) {
	for k, v := range a.header {
		w.Header().Set(k, v)
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(a.status)
	if a.stall != nil {
		w.(http.Flusher).Flush()
		if a.headed != nil {
			a.headed()
		}
		<-a.stall
	}
	io.WriteString(w, a.body)
}

// builtin lets every command of the tables succeed.
func builtin(method, path string) answer {
	last := path[strings.LastIndex(path, "/")+1:]
	stat, _ := json.Marshal(map[string]any{"name": "x", "size": 1, "mode": 0o644, "mtime": time.Unix(0, 0), "linkTarget": ""})
	switch {
	case path == "/containers/create":
		return answer{status: 201, body: `{"Id":"` + fakeID + `","Warnings":[]}`}
	case last == "exec":
		return answer{status: 201, body: `{"Id":"e1"}`}
	case strings.HasPrefix(path, "/exec/") && last == "json":
		return answer{status: 200, body: `{"ID":"e1","Running":false,"ExitCode":0}`}
	case last == "attach", strings.HasPrefix(path, "/exec/") && last == "start":
		return answer{stream: func(net.Conn) {}}
	case last == "wait":
		return answer{status: 200, body: `{"StatusCode":0}`}
	case path == "/commit":
		return answer{status: 201, body: `{"Id":"sha256:` + fakeID + `"}`}
	case path == "/auth":
		return answer{status: 200, body: `{"Status":"Login Succeeded"}`}
	case path == "/system/df":
		return answer{status: 200, body: `{}`}
	case path == "/containers/json", path == "/images/json", path == "/networks", path == "/images/search":
		return answer{status: 200, body: `[]`}
	case last == "json":
		return answer{status: 200, body: `{"Id":"` + fakeID + `","Name":"/c","State":{"Running":true,"Status":"running"},"Config":{"Tty":false},"HostConfig":{},"NetworkSettings":{}}`}
	case last == "update":
		return answer{status: 200, body: `{"Warnings":[]}`}
	case last == "archive" && method == http.MethodHead:
		return answer{status: 200, header: map[string]string{"X-Docker-Container-Path-Stat": base64.StdEncoding.EncodeToString(stat)}}
	case method == http.MethodDelete && strings.HasPrefix(path, "/images/"):
		return answer{status: 200, body: `[]`}
	case path == "/volumes/create":
		return answer{status: 201, body: `{"Name":"v"}`}
	case last == "prune", path == "/info", path == "/version", path == "/volumes":
		return answer{status: 200, body: `{}`}
	case strings.HasPrefix(path, "/volumes/"), strings.HasPrefix(path, "/networks/"):
		return answer{status: 200, body: `{"Name":"v"}`}
	case last == "top":
		return answer{status: 200, body: `{"Titles":["PID"],"Processes":[["1"]]}`}
	case last == "changes", last == "history":
		return answer{status: 200, body: `[]`}
	case method == http.MethodPost:
		return answer{status: 204}
	}
	return answer{status: 200}
}

// take returns what was asked since the last time, in a stable order, without
// what clients ask about the engine itself.
func (f *fake) take() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []call
	for _, c := range f.calls {
		if c.Path == "/_ping" {
			continue
		}
		out = append(out, c)
	}
	f.calls = nil
	sort.SliceStable(out, func(i, j int) bool { return out[i].Method+out[i].Path < out[j].Method+out[j].Path })
	return out
}

// result is what a person saw.
type result struct {
	Out, Err string
	Code     int
}

// command prepares a client's command line against the engine at host.
func command(t testing.TB, program, host string, args ...string) *exec.Cmd {
	path, argv0 := program, program
	if program == "gantry" {
		var err error
		if path, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, args...)
	cmd.Args[0] = argv0
	cmd.Env = append(os.Environ(), "GANTRY_TEST_MAIN=1", "DOCKER_HOST="+host, "GANTRY_HOST=", "DOCKER_CONFIG="+t.TempDir(), "TZ=UTC", "DOCKER_CLI_DISABLE_OAUTH_LOGIN=1")
	cmd.Dir = t.TempDir()
	return cmd
}

func run(t testing.TB, program, host string, args ...string) result {
	t.Helper()
	return finishRun(t, command(t, program, host, args...))
}

func finishRun(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%v does not end; output so far:\n%s%s", cmd.Args, out.String(), errOut.String())
	}
	if err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, errOut.String())
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}
