package fault

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// answering is a script that answers lines, and SIGTERM with exit code 7.
const answering = `trap 'exit 7' TERM; while read x; do echo got $x; done; while :; do usleep 5000; done`

// client is a gantry command that is attached to a process which answers.
type client struct {
	f    *fixture
	what string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	pid  int // of the process
}

// attached starts a client and returns when its stream works.
func (f *fixture) attached(name string, args ...string) *client {
	f.Helper()
	c := &client{f: f, what: strings.Join(args, " "), cmd: f.Command("gantry", args...)}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		f.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		f.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	var errOut strings.Builder
	c.cmd.Stderr = &errOut
	if err := c.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.cmd.Process.Kill() })
	c.echo("hello")
	id := f.mustInspect(name).ID
	for _, s := range f.held() {
		if s.ID == id && (s.ExecID != "") == (args[0] == "exec") {
			c.pid = s.Pid
		}
	}
	return c
}

// echo sends a line and waits for the answer.
func (c *client) echo(text string) {
	c.f.Helper()
	timer := time.AfterFunc(patience, func() { c.cmd.Process.Kill() })
	defer timer.Stop()
	fmt.Fprintln(c.in, text)
	if line, err := c.out.ReadString('\n'); line != "got "+text+"\n" {
		c.f.Fatalf("gantry %s: %q, %v: %v", c.what, line, err, c.cmd.Stderr)
	}
}

// end ends the process and returns when it has ended.
func (c *client) end() {
	c.f.Helper()
	if err := syscall.Kill(c.pid, syscall.SIGTERM); err != nil {
		c.f.Fatal(err)
	}
	c.f.eventually(func() string {
		if syscall.Kill(c.pid, 0) == nil && !zombie(c.pid) {
			return fmt.Sprintf("process %d does not end", c.pid)
		}
		return ""
	})
}

// ended wants the exit code of the process from the client.
func (c *client) ended() {
	f := c.f
	f.Helper()
	timer := time.AfterFunc(patience, func() {
		f.Errorf("gantry %s hangs", c.what)
		c.cmd.Process.Kill()
	})
	defer timer.Stop()
	rest, _ := io.ReadAll(c.out)
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || len(rest) > 0 {
		f.Errorf("gantry %s ended with %v, and said %q and %q", c.what, err, rest, c.cmd.Stderr)
	}
}

// clients attaches one client of each kind.
func (f *fixture) clients(name string) (list []*client) {
	f.Helper()
	start := func(name string, args ...string) {
		list = append(list, f.attached(name, args...))
	}
	script := []string{"busybox", "sh", "-c", answering}
	start(name+"-rm", append([]string{"run", "-i", "--rm", "--name", name + "-rm"}, script...)...)
	start(name+"-kept", append([]string{"run", "-i", "--name", name + "-kept"}, script...)...)
	f.ok(append([]string{"create", "-i", "--name", name + "-created"}, script...)...)
	start(name+"-created", "start", "-ai", name+"-created")
	f.ok(append([]string{"run", "-di", "--name", name + "-detached"}, script...)...)
	start(name+"-detached", "attach", name+"-detached")
	f.ok("run", "-d", "--name", name+"-host", "busybox", "sleep", "100000")
	start(name+"-host", append([]string{"exec", "-i", name + "-host"}, script[1:]...)...)
	return list
}

// The daemon dies or is replaced under clients that are attached. What they are
// attached to goes on, and they learn its exit code, whether it ended while there
// was no daemon or later.
func TestClientsSurvive(t *testing.T) {
	f := newFixture(t)
	for round := range f.rounds() {
		away, later := f.clients("away"), f.clients("later")
		sig := syscall.SIGKILL
		if round%2 == 1 {
			sig = syscall.SIGTERM
		}
		if err := f.Kill(sig); err != nil {
			t.Fatal(err)
		}
		for _, c := range append(away, later...) {
			c.echo("outage")
		}
		for _, c := range away {
			c.end()
		}
		f.start()
		for _, c := range away {
			c.ended()
		}
		for _, c := range later {
			c.echo("after")
			c.end()
			c.ended()
		}
		for _, name := range []string{"away", "later"} {
			f.ok("rm", "-f", name+"-kept", name+"-created", name+"-detached", name+"-host")
			if _, err := f.inspect(name + "-rm"); err == nil {
				t.Errorf("%s-rm is still there", name)
			}
		}
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	f.clean()
}
