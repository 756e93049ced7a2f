package fault

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Clients are killed in the middle of everything: neither the daemon nor the
// shim keeps a descriptor or a goroutine of theirs.
func TestClientsCut(t *testing.T) {
	f := newFixture(t)
	l := f.startLoad()
	big := filepath.Join(f.Dir, "big")
	f.ok("exec", "counter0", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=24")
	archive := filepath.Join(f.Dir, "busybox.tar")
	f.ok("save", "-o", archive, "busybox")
	commands := [][]string{
		{"attach", "--no-stdin", "--sig-proxy=false", "counter0"},
		{"logs", "-f", "counter1"},
		{"cp", "counter0:/big", big},
		{"cp", archive, "counter0:/copy"},
		{"load", "-i", archive},
		{"import", archive, "cut"},
		{"export", "-o", filepath.Join(f.Dir, "export"), "counter0"},
		{"save", "-o", filepath.Join(f.Dir, "saved"), "busybox"},
		{"wait", "counter2"},
		{"events"},
		{"stats", "counter0"},
		{"exec", "counter0", "sh", "-c", "sleep 0.3; echo done"},
		{"run", "--rm", "busybox", "sleep", "0.3"},
	}
	f.cut(commands, 1) // what grows once grows now
	before, held := f.resources(), f.ioFiles()
	f.cut(commands, f.rounds())
	f.settled(before, held)
	l.known()
	l.check(0)
	f.ok("rmi", "-f", "cut")
	l.end(0)
	f.stopCounters(l)
	f.clean()
}

// cut starts each command and kills it somewhere, rounds times.
func (f *fixture) cut(commands [][]string, rounds int) {
	f.Helper()
	for range rounds {
		var running []*exec.Cmd
		for _, args := range commands {
			cmd := f.Command("gantry", args...)
			if err := cmd.Start(); err != nil {
				f.Fatal(err)
			}
			running = append(running, cmd)
		}
		time.Sleep(30*time.Millisecond + moment(250*time.Millisecond))
		for _, cmd := range running {
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
}

// Requests that stop in the middle of their body, and answers nobody reads.
func TestRequestsCut(t *testing.T) {
	f := newFixture(t)
	l := f.startLoad()
	f.ok("exec", "counter0", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=24")
	before, held := f.resources(), f.ioFiles()
	for round := range f.rounds() {
		for _, request := range []string{
			"POST /images/load HTTP/1.1\r\nContent-Length: 1000000\r\n",
			"POST /images/create?fromSrc=-&repo=cut HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
			"PUT /containers/counter0/archive?path=/tmp HTTP/1.1\r\nContent-Length: 1000000\r\n",
			"POST /containers/create HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n",
			"GET /containers/counter0/archive?path=/big HTTP/1.1\r\n",
			"GET /containers/counter0/export HTTP/1.1\r\n",
			"GET /containers/counter0/logs?stdout=1&follow=1 HTTP/1.1\r\n",
			"POST /containers/counter0/attach?stream=1&stdout=1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n",
			"POST /containers/counter0/wait HTTP/1.1\r\n",
			"GET /events HTTP/1.1\r\n",
			"GET /containers/counter0/stats HTTP/1.1\r\n",
		} {
			conn, err := net.Dial("unix", f.Socket)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, request+"Host: engine\r\n\r\n1000\r\n{\"half")
			defer conn.Close()
			go func() {
				time.Sleep(moment(200 * time.Millisecond))
				if round%2 == 0 {
					conn.(*net.UnixConn).CloseWrite()
				}
				conn.Close()
			}()
		}
		time.Sleep(100 * time.Millisecond)
	}
	f.settled(before, held)
	l.known()
	l.check(0)
	l.end(0)
	f.stopCounters(l)
	f.clean()
}

// A client with a terminal goes on when the daemon is killed. A person can end the
// shell, and gets its exit code from the next daemon, or leave it without any. The
// terminal is as it was afterwards.
func TestTerminalClientWhenDaemonKilled(t *testing.T) {
	f := newFixture(t)
	for round := range f.rounds() {
		name := fmt.Sprint("terminal", round)
		master, slave := openTerminal(t)
		before := termios(t, slave)
		cmd := f.Command("gantry", "run", "-it", "--name", name, "busybox", "sh", "-c", "stty -echo; echo ready; while read x; do echo got $x; done; exit 7")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s := readTerminal(master)
		s.expect(t, "ready")
		if round%2 == 1 {
			// They come after the start: its answer is given by then, which no
			// daemon in this round would give again.
			f.ok("pause", name)
			f.ok("unpause", name)
		}
		if err := f.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		io.WriteString(master, "hello\n")
		s.expect(t, "got hello")
		code := 7
		if round%2 == 0 {
			io.WriteString(master, "\x04") // the end of the shell's input
			f.start()
		} else {
			io.WriteString(master, "\x10\x11") // Ctrl-P Ctrl-Q
			code = 0
		}
		hangs := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		if err := cmd.Wait(); !hangs.Stop() || cmd.ProcessState.ExitCode() != code {
			t.Errorf("round %d: the client ended with %v, not %d", round, err, code)
		}
		if after := termios(t, slave); after != before {
			t.Errorf("the terminal was left changed: %+v, before %+v", after, before)
		}
		master.Close()
		slave.Close()
		if code == 0 {
			f.start()
			a := f.attach(name)
			a.echo(f, "again")
			a.Close()
		}
		f.ok("rm", "-f", name)
	}
	f.clean()
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	v, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *v
}

// screen is what a terminal has shown.
type screen struct{ text chan string }

func readTerminal(master *os.File) *screen {
	s := &screen{make(chan string, 1000)}
	go func() {
		defer close(s.text)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if n > 0 {
				s.text <- string(b[:n])
			}
			if err != nil && !errors.Is(err, syscall.EIO) {
				return
			}
			if err != nil {
				time.Sleep(5 * time.Millisecond)
			}
		}
	}()
	return s
}

func (s *screen) expect(t *testing.T, what string) {
	t.Helper()
	seen := ""
	deadline := time.After(patience)
	for !strings.Contains(seen, what) {
		select {
		case text, ok := <-s.text:
			if !ok {
				t.Fatalf("the terminal showed %q, not %q", seen, what)
			}
			seen += text
		case <-deadline:
			t.Fatalf("the terminal showed %q, not %q", seen, what)
		}
	}
}

// A client whose exec was never started, because the daemon died between its
// attachment and the start, is let go by the next daemon.
func TestExecClientWhenDaemonKilled(t *testing.T) {
	f := newFixture(t)
	f.ok("run", "-d", "--name", "host", "busybox", "sleep", "1000")
	for range f.rounds() {
		var wait []chan error
		for range 4 {
			var created struct{ ID string }
			ended := make(chan error, 1)
			wait = append(wait, ended)
			if err := f.post("/containers/host/exec", map[string]any{"Cmd": []string{"sh", "-c", "sleep 0.05; exit 5"}, "AttachStdout": true}, &created); err != nil {
				t.Fatal(err)
			}
			go func() {
				s, err := f.hijack("/exec/"+created.ID+"/start", map[string]any{"Detach": false})
				if err != nil {
					ended <- nil // refused, or cut off before it began
					return
				}
				defer s.Close()
				s.SetDeadline(time.Now().Add(patience))
				_, err = io.Copy(io.Discard, s.r)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					ended <- err
					return
				}
				var st struct {
					ExitCode *int
					Running  bool
				}
				deadline := time.Now().Add(patience)
				for {
					err := f.get("/exec/"+created.ID+"/json", &st)
					if err != nil && strings.Contains(err.Error(), "404") {
						ended <- nil // never started
						return
					}
					if err == nil {
						if st.Running || st.ExitCode == nil || *st.ExitCode != 5 {
							ended <- fmt.Errorf("after the end of its stream the exec is %+v", st)
							return
						}
						ended <- nil
						return
					}
					if time.Now().After(deadline) {
						ended <- err
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
		}
		time.Sleep(moment(30 * time.Millisecond))
		if err := f.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.start()
		for _, ended := range wait {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
	}
	f.clean()
}

// post sends v as JSON and decodes the answer.
func (f *fixture) post(path string, v, answer any) error {
	return f.do(http.MethodPost, path, v, answer)
}
