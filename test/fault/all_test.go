package fault

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The daemon and both roles of the shim are killed at once: containers run on,
// and the next daemon takes them over with their logs. What ended meanwhile is
// told as unknown where nobody is left who could know.
func TestAllKilled(t *testing.T) {
	f := newFixture(t)
	f.cuts = true
	port := freePort(f)
	pids := map[string]int{}
	for _, name := range []string{"one", "two"} {
		f.ok("run", "-d", "--name", name, "busybox", "sh", "-c", counting)
		pids[name] = f.mustInspect(name).State.Pid
	}
	f.ok("run", "-d", "--name", "web", "-p", fmt.Sprintf("%d:80", port), "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
	pids["web"] = f.mustInspect("web").State.Pid
	l := &load{f: f, pids: pids, port: port, counters: []string{"one", "two"}}
	for round := range f.rounds() {
		f.ok("run", "-d", "--name", "leaver", "busybox", "sh", "-c", leaving)
		f.ok("run", "-d", "--rm", "--name", "removed", "busybox", "sh", "-c", leaving)
		leavers := []*leaver{
			{name: "leaver", pid: f.mustInspect("leaver").State.Pid},
			{name: "removed", pid: f.mustInspect("removed").State.Pid},
		}
		info := f.shimInfo()
		time.Sleep(moment(100 * time.Millisecond))
		pulled := []int{f.Pid(), info.Pid, info.NetPid}
		for i := range pulled {
			syscall.Kill(pulled[(i+round)%3], syscall.SIGKILL)
		}
		if err := f.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.endLeavers(leavers)
		l.alive()
		f.start()
		l.known()
		f.eventually(func() string {
			if err := l.ask(); err != nil {
				return err.Error()
			}
			s, err := f.inspect("leaver")
			if err != nil || s.State.Status != "exited" {
				return fmt.Sprintf("leaver is %+v, %v", s.State, err)
			}
			if s.State.ExitCode != 7 && (s.State.ExitCode != 255 || !strings.Contains(s.State.Error, "unknown")) {
				return fmt.Sprintf("leaver ended with 7 and is %+v", s.State)
			}
			if s, err := f.inspect("removed"); err == nil {
				return fmt.Sprintf("removed is still there: %+v", s.State)
			}
			return ""
		})
		f.ok("rm", "leaver")
		if out := f.ok("exec", "one", "echo", "here"); out != "here" {
			t.Errorf("exec says %q", out)
		}
		first := f.lines("one")
		f.eventually(func() string {
			if now := f.lines("one"); now <= first {
				return fmt.Sprintf("the log stands at line %d", now)
			}
			return ""
		})
		f.consistent()
	}
	f.stopCounters(l)
	f.clean()
}
