package fault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deeds is what clients do while the daemon dies under them.
func (f *fixture) deeds() map[string]func(int) error {
	archive := filepath.Join(f.Dir, "busybox.tar")
	f.ok("save", "-o", archive, "busybox")
	slow := f.startRegistry()
	return map[string]func(int) error{
		"run --rm": func(int) error {
			return f.code(3, "hi", "run", "--rm", "busybox", "sh", "-c", "echo hi; exit 3")
		},
		"exec": func(int) error {
			return f.code(4, "42", "exec", "counter0", "sh", "-c", "echo $((6*7)); exit 4")
		},
		"create, start, stop, rm": func(n int) error {
			_, errs := f.try("rm", "-f", "-v", "named")
			for _, args := range [][]string{
				{"create", "--name", "named", "-v", "/anonymous", "-p", "80", "busybox", "sleep", "1000"},
				{"start", "named"}, {"stop", "-t", "0", "named"}, {"start", "named"}, {"kill", "named"}, {"rm", "-f", "-v", "named"},
			} {
				_, err := f.try(args...)
				errs = errors.Join(errs, err)
			}
			return errs
		},
		"logs -f": func(int) error { return f.followFor("counter1", 150*time.Millisecond) },
		"load": func(n int) error {
			_, err := f.try("load", "-i", archive)
			time.Sleep(20 * time.Millisecond)
			return err
		},
		"pull, rmi": func(n int) error {
			_, err := f.try("pull", "-q", slow)
			_, err2 := f.try("rmi", "-f", slow)
			return errors.Join(err, err2)
		},
		"import, rmi": func(n int) error {
			_, err := f.try("import", archive, "other")
			_, err2 := f.try("rmi", "-f", "other")
			return errors.Join(err, err2)
		},
	}
}

// code runs a command that ends with this code and says this, unless the engine
// is away: then it fails as an engine does.
func (f *fixture) code(want int, says string, args ...string) error {
	out, err := f.try(args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		f.Errorf("gantry %s ended with 0: %q, %v", strings.Join(args, " "), out, err)
		return err
	}
	switch exit.ExitCode() {
	case want:
		if got := strings.TrimSpace(out); got != says && !(f.cuts && got == "") {
			f.Errorf("gantry %s said %q", strings.Join(args, " "), out)
		}
		return nil
	case 1, 125, 126:
		return err
	}
	f.Errorf("gantry %s ended with %d: %q, %v", strings.Join(args, " "), exit.ExitCode(), out, err)
	return err
}

// followFor follows a log for a while and looks that no line is missing in it; of
// how many the end of io may take along, see fewMissing.
func (f *fixture) followFor(name string, d time.Duration) error {
	cmd := f.Command("gantry", "logs", "-f", "--tail", "5", name)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(d, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		err = nil
	}
	last := 0
	for _, line := range strings.Split(out.String(), "\n") {
		var n int
		if _, serr := fmt.Sscanf(line, "line %d", &n); serr != nil {
			continue
		}
		if last != 0 && n != last+1 && !(f.cuts && n > last) && !strings.HasSuffix(out.String(), line) {
			f.Errorf("logs -f of %s gave line %d after line %d", name, n, last)
		}
		last = n
	}
	return err
}

// leaver is a container that ends while there is no daemon.
type leaver struct {
	name string
	args []string
	pid  int
}

const leaving = `trap 'exit 7' TERM; while :; do usleep 5000; done`

func (f *fixture) startLeavers() []*leaver {
	f.Helper()
	list := []*leaver{
		{name: "plain"},
		{name: "removed", args: []string{"--rm"}},
		{name: "always", args: []string{"--restart", "always"}},
		{name: "on-failure", args: []string{"--restart", "on-failure:3"}},
		{name: "unless-stopped", args: []string{"--restart", "unless-stopped"}},
	}
	for _, l := range list {
		args := append([]string{"run", "-d", "--name", l.name}, l.args...)
		f.ok(append(args, "busybox", "sh", "-c", leaving)...)
		l.pid = f.mustInspect(l.name).State.Pid
	}
	return list
}

func (f *fixture) endLeavers(list []*leaver) {
	f.Helper()
	for _, l := range list {
		// The shell may not have set its trap yet: until then it, being the
		// init of its namespace, ignores the signal.
		f.eventually(func() string {
			if syscall.Kill(l.pid, syscall.SIGTERM) == nil && !zombie(l.pid) {
				return fmt.Sprintf("%s, process %d, does not end", l.name, l.pid)
			}
			return ""
		})
	}
}

// zombie tells whether a process has ended and waits for its parent, which may
// be any init when io was killed.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	return err != nil || strings.HasPrefix(rest, "Z")
}

// left looks that what ended in the outage is known, and takes the rest away.
func (f *fixture) left(list []*leaver) {
	f.Helper()
	for _, l := range list {
		f.eventually(func() string {
			s, err := f.inspect(l.name)
			switch {
			case l.name == "removed":
				if err == nil {
					return fmt.Sprintf("%s is still there: %+v", l.name, s.State)
				}
				return ""
			case err != nil:
				return err.Error()
			case l.name == "plain":
				if s.State.Status != "exited" || s.State.ExitCode != 7 {
					return fmt.Sprintf("%s is %+v", l.name, s.State)
				}
			case s.State.Status != "running" || s.State.Pid == l.pid:
				return fmt.Sprintf("%s was not restarted: %+v", l.name, s.State)
			}
			return ""
		})
		if l.name != "removed" {
			f.ok("rm", "-f", l.name)
		}
	}
}

// consistent looks that what the daemon says agrees with what the shim holds.
func (f *fixture) consistent() {
	f.Helper()
	f.eventually(func() string {
		var list []struct {
			ID, State string
			Names     []string
		}
		if err := f.get("/containers/json?all=1", &list); err != nil {
			return err.Error()
		}
		runs := map[string]bool{}
		for _, s := range f.held() {
			if s.ExecID == "" && s.Running {
				runs[s.ID] = true
			}
		}
		for _, c := range list {
			switch {
			case c.State != "created" && c.State != "running" && c.State != "exited" && c.State != "removing":
				return fmt.Sprintf("%v is %s", c.Names, c.State)
			case runs[c.ID] != (c.State == "running"):
				return fmt.Sprintf("%v is %s, held by the shim as running: %v", c.Names, c.State, runs[c.ID])
			}
			delete(runs, c.ID)
		}
		if len(runs) > 0 {
			return fmt.Sprintf("the shim holds what the daemon does not know: %v", runs)
		}
		return ""
	})
}

// The daemon is killed in the middle of anything.
func TestDaemonKilled(t *testing.T) {
	f := newFixture(t)
	l := f.startLoad()
	deeds := f.deeds()
	f.ok("run", "-d", "--name", "pausee", "busybox", "sleep", "100000")
	deeds["pause, unpause"] = func(int) error {
		_, err := f.try("pause", "pausee")
		_, err2 := f.try("unpause", "pausee")
		return errors.Join(err, err2)
	}
	for round := range f.rounds() {
		leavers := f.startLeavers()
		c := f.startChaos(deeds)
		time.Sleep(100*time.Millisecond + moment(400*time.Millisecond))
		if err := f.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.endLeavers(leavers)
		l.tty.echo(f, fmt.Sprint("outage", round))
		time.Sleep(moment(50 * time.Millisecond))
		l.alive()
		f.start()
		f.left(leavers)
		time.Sleep(moment(100 * time.Millisecond))
		l.known()
		c.end()
		// What is said to be paused is, and what is not is not.
		if s := f.mustInspect("pausee"); s.State.Status == "paused" {
			f.ok("unpause", "pausee")
		}
		f.ok("exec", "pausee", "true")
		f.consistent()
		l.check(round)
		f.try("rm", "-f", "-v", "named")
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	l.end(0)
	f.stopCounters(l)
	f.clean()
}

// stopCounters ends what counts and looks for its last line and exit code.
func (f *fixture) stopCounters(l *load) {
	f.Helper()
	for _, name := range l.counters {
		f.ok("stop", name)
		if s := f.mustInspect(name); s.State.ExitCode != 7 {
			f.Errorf("%s is %+v", name, s.State)
		}
		n := f.lines(name)
		f.Logf("%s wrote %d lines", name, n)
	}
}

// The daemon is replaced in order: SIGTERM, and a new one.
func TestDaemonReplaced(t *testing.T) {
	f := newFixture(t)
	l := f.startLoad()
	for round := range f.rounds() {
		leavers := f.startLeavers()
		if err := f.Kill(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		f.endLeavers(leavers)
		l.alive()
		l.tty.echo(f, fmt.Sprint("outage", round))
		f.start()
		l.known()
		f.left(leavers)
		l.check(round)
	}
	l.end(0)
	f.stopCounters(l)
	f.clean()
}
