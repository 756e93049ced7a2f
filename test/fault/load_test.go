package fault

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// state is what inspect says of a container.
type state struct {
	ID    string `json:"Id"`
	State struct {
		Status   string
		Running  bool
		Pid      int
		ExitCode int
		Error    string
	}
	RestartCount    int
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress, Gateway string }
		Ports    map[string][]struct{ HostIp, HostPort string }
	}
}

func (f *fixture) inspect(name string) (*state, error) {
	var s state
	return &s, f.get("/containers/"+name+"/json", &s)
}

func (f *fixture) mustInspect(name string) *state {
	f.Helper()
	s, err := f.inspect(name)
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// counting is a script that writes numbered lines, on both streams, until
// SIGTERM, which it answers with exit code 7.
const counting = `trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo line $i; usleep 4000; done`

// load is what the engine does while its parts are killed.
type load struct {
	f        *fixture
	counters []string       // containers that count
	pids     map[string]int // of everything that must not end
	port     int
	tty      *stream // attached to the container "tty"

	outside *prober // asks the published port on the host's loopback
}

// startLoad starts containers that count, one with a published port that is
// asked from the host and from another container, and one with a terminal that
// a client is attached to.
func (f *fixture) startLoad() *load {
	f.Helper()
	l := &load{f: f, pids: map[string]int{}, port: freePort(f)}
	for i := range 3 {
		name := fmt.Sprint("counter", i)
		f.ok("run", "-d", "--name", name, "busybox", "sh", "-c", counting)
		l.counters = append(l.counters, name)
	}
	f.ok("run", "-d", "--name", "web", "-p", fmt.Sprintf("%d:80", l.port), "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
	f.eventually(func() string {
		if err := (&load{port: l.port}).ask(); err != nil {
			return err.Error()
		}
		return ""
	})
	var gateway string
	for _, n := range f.mustInspect("web").NetworkSettings.Networks {
		gateway = n.Gateway
	}
	f.ok("run", "-d", "--name", "asker", "busybox", "sh", "-c",
		fmt.Sprintf(`while :; do a=$(printf 'GET /group HTTP/1.0\r\n\r\n' | nc -w 5 %s %d 2>&1)
		case "$a" in *root:*) echo ok;; *) echo "FAIL $a";; esac; usleep 20000; done`, gateway, l.port))
	f.ok("create", "-it", "--name", "tty", "busybox", "sh", "-c", "stty -echo; while read x; do echo got $x; done")
	f.ok("start", "tty")
	l.tty = f.attach("tty")
	for _, name := range append([]string{"web", "asker", "tty"}, l.counters...) {
		l.pids[name] = f.mustInspect(name).State.Pid
	}
	l.outside = probe(l.ask)
	f.Cleanup(func() { l.tty.Close() })
	return l
}

func freePort(f *fixture) int {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// ask asks the published port, from outside of any container.
func (l *load) ask() error {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/group", l.port))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || !strings.HasPrefix(string(b), "root:") {
		return fmt.Errorf("answered %q, %v", b, err)
	}
	return nil
}

// alive fails unless every container of the load is the process it was.
func (l *load) alive() {
	l.f.Helper()
	for name, pid := range l.pids {
		if err := syscall.Kill(pid, 0); err != nil || zombie(pid) {
			l.f.Fatalf("%s, process %d, is gone", name, pid)
		}
	}
}

// known fails unless the daemon says the same.
func (l *load) known() {
	l.f.Helper()
	for name, pid := range l.pids {
		s := l.f.mustInspect(name)
		if !s.State.Running || s.State.Pid != pid {
			l.f.Fatalf("%s is %+v, want it to run as %d", name, s.State, pid)
		}
	}
}

// check looks at the logs and the terminal.
func (l *load) check(round int) {
	l.f.Helper()
	for _, name := range l.counters {
		l.f.lines(name)
	}
	l.tty.echo(l.f, fmt.Sprint("round", round))
}

// end fails if the published port was not there for longer than allowed.
func (l *load) end(allowed time.Duration) {
	l.f.Helper()
	p := l.outside.end()
	if p.worst > allowed {
		l.f.Errorf("the published port did not answer %d times, once for %v: %v", p.failures, p.worst, p.last)
	}
	if p.answers == 0 {
		l.f.Error("the published port never answered")
	}
	out := l.f.ok("logs", "-t", "asker")
	if allowed == 0 && strings.Contains(out, "FAIL") || !strings.Contains(out, "ok") {
		l.f.Errorf("a container did not reach the published port: %s", allWith(out, "FAIL"))
	}
}

func allWith(s, part string) (list []string) {
	for _, line := range strings.Split(s, "\n") {
		if strings.Contains(line, part) {
			list = append(list, line)
		}
	}
	return list
}

// lines fails unless the log of a counter has every line once and in order. It
// returns how many they are.
func (f *fixture) lines(name string) int {
	f.Helper()
	out := f.ok("logs", name)
	list := strings.Split(out, "\n")
	if out == "" {
		return 0
	}
	if f.cuts {
		return f.fewMissing(name, list)
	}
	for i, line := range list {
		if want := fmt.Sprint("line ", i+1); line != want {
			f.Fatalf("line %d of %d of the log of %s is %q\n%s", i+1, len(list), name, line, f.rawLog(name, want))
		}
	}
	return len(list)
}

// fewMissing is for logs whose writer was killed: what it had taken out of the
// pipe and not yet written is lost, a chunk at most each time. Nothing is there
// twice, out of order or torn.
func (f *fixture) fewMissing(name string, list []string) int {
	f.Helper()
	last, missing := 0, 0
	for _, line := range list {
		n, err := strconv.Atoi(strings.TrimPrefix(line, "line "))
		if err != nil || n <= last {
			f.Fatalf("after line %d the log of %s has %q", last, name, line)
		}
		missing += n - last - 1
		last = n
	}
	if missing > 5*enginetest.Rounds(f.T, 8) {
		f.Fatalf("%d of %d lines are missing in the log of %s", missing, last, name)
	}
	return last
}

func (f *fixture) rawLog(name, around string) string {
	var c struct{ LogPath string }
	f.get("/containers/"+name+"/json", &c)
	b, err := os.ReadFile(c.LogPath)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("the file has %d lines, %q %d times", strings.Count(string(b), "\n"), around, strings.Count(string(b), `"`+around+`\n"`))
}

// stream is a hijacked connection to a terminal.
type stream struct {
	net.Conn
	r *bufio.Reader
}

// attach attaches to a running container's terminal.
func (f *fixture) attach(name string) *stream {
	f.Helper()
	s, err := f.hijack("/containers/"+name+"/attach?stream=1&stdin=1&stdout=1&stderr=1", nil)
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// hijack makes a request that turns the connection into a stream.
func (f *fixture) hijack(path string, body any) (*stream, error) {
	conn, err := net.Dial("unix", f.Socket)
	if err != nil {
		return nil, err
	}
	raw := []byte{}
	if body != nil {
		raw, _ = json.Marshal(body)
	}
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s",
		path, strconv.Itoa(len(raw)), raw)
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
	if err != nil {
		conn.Close()
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols && answer.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(answer.Body)
		conn.Close()
		return nil, fmt.Errorf("POST %s: %s: %s", path, answer.Status, b)
	}
	conn.SetDeadline(time.Time{})
	return &stream{conn, r}, nil
}

// echo types a line and waits for its echo by the script in the container.
func (s *stream) echo(f *fixture, word string) {
	f.Helper()
	s.SetDeadline(time.Now().Add(patience))
	defer s.SetDeadline(time.Time{})
	if _, err := io.WriteString(s, word+"\n"); err != nil {
		f.Fatalf("cannot type %s: %v", word, err)
	}
	seen := ""
	for {
		line, err := s.r.ReadString('\n')
		seen += line
		if err != nil {
			f.Fatalf("typed %s, read %q: %v", word, seen, err)
		}
		if strings.TrimSpace(line) == "got "+word {
			return
		}
	}
}

// chaos is clients that do this and that until they are stopped. What they are
// told may be an error; it must not be a lie, and they must not hang.
type chaos struct {
	f    *fixture
	stop chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex // guards done
	done   map[string]int
	failed map[string]int
}

func (f *fixture) startChaos(deeds map[string]func(n int) error) *chaos {
	c := &chaos{f: f, stop: make(chan struct{}), done: map[string]int{}, failed: map[string]int{}}
	for name, do := range deeds {
		c.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-c.stop:
					return
				default:
				}
				err := do(n)
				c.mu.Lock()
				if err == nil {
					c.done[name]++
				} else {
					c.failed[name]++
				}
				c.mu.Unlock()
				if err != nil {
					time.Sleep(30 * time.Millisecond) // the daemon is away
				}
			}
		})
	}
	return c
}

func (c *chaos) end() {
	c.f.Helper()
	close(c.stop)
	c.wg.Wait()
	c.f.Logf("done %v, failed %v", c.done, c.failed)
	for name := range c.failed {
		c.f.worked[name] += 0
	}
	for name, n := range c.done {
		c.f.worked[name] += n
	}
}
