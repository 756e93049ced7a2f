package runtime

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTerminal(t *testing.T) {
	each(t, func(f *fixture) {
		s := f.terminal(f.run("--rm", "-it", "busybox", "sh", "-c", "tty; stty size; read x; echo got $x; exit 5")...)
		s.await("31 97")
		s.await("/dev/")
		s.write("typed\r")
		s.await("got typed")
		f.want("exit code", s.wait(), 5)

		id := f.detached("-t", "busybox", "sleep", "100")
		s = f.terminal("exec", "-it", id, "sh", "-c", "stty size; read x; echo got $x; exit 6")
		s.await("31 97")
		s.resize(40, 100)
		s.write("typed\r")
		s.await("got typed")
		f.want("exit code of an exec", s.wait(), 6)

		id = f.detached("-it", "busybox", "sh")
		s = f.terminal("attach", id)
		s.write("echo $((6*7))\r")
		s.await("42")
		s.write("\x10\x11") // ctrl-p ctrl-q
		f.want("exit code of a detached client", s.wait(), 0)
		f.want("state", f.inspect(id, ".State.Status"), "running")
	})
}

// session is a command with a terminal of its own.
type session struct {
	f      *fixture
	cmd    *exec.Cmd
	master *os.File

	mu   sync.Mutex // guards said
	said strings.Builder
}

func (f *fixture) terminal(args ...string) *session {
	f.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Skipf("no terminals here: %v", err)
	}
	unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		f.Fatal(err)
	}
	s := &session{f: f, master: os.NewFile(uintptr(fd), "ptmx")}
	s.resize(31, 97)
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		f.Fatal(err)
	}
	defer slave.Close()
	s.cmd = shared.Command("gantry", args...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.cmd.Process.Kill() })
	go io.Copy(s, s.master)
	return s
}

// Write keeps what the terminal shows.
func (s *session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(p)
}

func (s *session) resize(rows, columns uint16) {
	unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
}

func (s *session) write(text string) { io.WriteString(s.master, text) }

func (s *session) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

func (s *session) await(text string) {
	s.f.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.text(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.f.Fatalf("%q does not appear in %q", text, s.text())
		}
	}
}

// wait returns the exit code.
func (s *session) wait() int {
	s.f.Helper()
	timer := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	defer timer.Stop()
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}
