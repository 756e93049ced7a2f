package fault

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// told is a gantry run without input: how its container ends comes on the stream.
type told struct {
	f    *fixture
	name string
	cmd  *exec.Cmd
	out  *bufio.Reader
	err  strings.Builder
	pid  int // of the process
}

// told starts one and returns when its stream works. At SIGTERM it says bye and ends
// with 7.
func (f *fixture) told(name string, flags ...string) *told {
	f.Helper()
	args := append(append([]string{"run", "--name", name}, flags...), "busybox", "sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do usleep 5000; done")
	r := &told{f: f, name: name, cmd: f.Command("gantry", args...)}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		f.Fatal(err)
	}
	r.out, r.cmd.Stderr = bufio.NewReader(out), &r.err
	if err := r.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { r.cmd.Process.Kill() })
	timer := time.AfterFunc(patience, func() { r.cmd.Process.Kill() })
	defer timer.Stop()
	if line, err := r.out.ReadString('\n'); line != "ready\n" {
		f.Fatalf("gantry run: %q, %v: %s", line, err, &r.err)
	}
	id := f.mustInspect(name).ID
	for _, s := range f.held() {
		if s.ID == id {
			r.pid = s.Pid
		}
	}
	return r
}

// end ends the process.
func (r *told) end() {
	r.f.Helper()
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		r.f.Error(err)
	}
}

// gone returns when the process has.
func (r *told) gone() {
	r.f.Helper()
	r.f.eventually(func() string {
		if syscall.Kill(r.pid, 0) == nil && !zombie(r.pid) {
			return fmt.Sprintf("process %d does not end", r.pid)
		}
		return ""
	})
}

// ended wants the rest of the output from the client, and the exit code.
func (r *told) ended(when string) {
	r.f.Helper()
	timer := time.AfterFunc(patience, func() {
		r.f.Errorf("%s: gantry run hangs", when)
		r.cmd.Process.Kill()
	})
	defer timer.Stop()
	rest, _ := io.ReadAll(r.out)
	if r.cmd.Wait(); r.cmd.ProcessState.ExitCode() != 7 || string(rest) != "bye\n" || r.err.Len() > 0 {
		r.f.Errorf("%s: gantry run ended with %v, and said %q and %q", when, r.cmd.ProcessState, rest, &r.err)
	}
	r.f.try("rm", "-f", r.name)
}

// How a container ends is told on its client's stream by the daemon that has started
// it. Whenever that one dies or is replaced, the client has all output and learns the
// exit code from the next.
func TestToldWhenDaemonKilled(t *testing.T) {
	f := newFixture(t)
	for round := range f.times(2, 8) {
		sig := syscall.SIGKILL
		if round%4 == 1 {
			sig = syscall.SIGTERM
		}
		both := func(name string) []*told { return []*told{f.told(name), f.told(name+"-rm", "--rm")} }
		away, later, amid := both("away"), both("later"), both("amid")
		for _, r := range amid {
			r.end()
		}
		time.Sleep(moment(10 * time.Millisecond))
		if err := f.Kill(sig); err != nil {
			t.Fatal(err)
		}
		for _, r := range away {
			r.end()
			r.gone()
		}
		f.start()
		for _, r := range later {
			r.end()
		}
		for when, list := range map[string][]*told{"while there was no daemon": away, "at the next daemon": later, "when it was killed": amid} {
			for _, r := range list {
				r.ended(when)
			}
		}
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	f.clean()
}

// The shim that becomes another program still leaves the connection to the daemon.
func TestToldWhenShimUpgraded(t *testing.T) {
	f := newFixture(t)
	for round := range f.rounds() {
		before, amid := f.told("before", "--rm"), f.told("amid", "--rm")
		binary := f.anotherShim(round)
		time.AfterFunc(moment(20*time.Millisecond), amid.end)
		f.upgrade(binary)
		before.end()
		before.ended("after an upgrade")
		amid.ended("at an upgrade")
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	f.clean()
}

// The client of a container whose io is killed hears nothing more of it, and does not
// hang: it ends when the container has.
func TestToldWhenIOKilled(t *testing.T) {
	f := newFixture(t)
	f.cuts = true
	for range f.rounds() {
		r := f.told("cut", "--rm")
		if err := syscall.Kill(f.shimInfo().Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.shimInfo() // there is another
		r.end()
		timer := time.AfterFunc(patience, func() {
			t.Error("gantry run hangs")
			r.cmd.Process.Kill()
		})
		rest, _ := io.ReadAll(r.out)
		r.cmd.Wait()
		timer.Stop()
		// Not every kernel tells the exit code to who is not the parent.
		unknown := r.cmd.ProcessState.ExitCode() == 125 && strings.Contains(r.err.String(), "the exit code is unknown")
		if code := r.cmd.ProcessState.ExitCode(); code != 7 && !unknown || len(rest) > 0 {
			t.Fatalf("it ended with %d, and said %q and %q", code, rest, &r.err)
		}
	}
	f.clean()
}
