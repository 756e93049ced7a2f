package fault

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// steady are the deeds that no fault of the shim may disturb.
func (f *fixture) steady() map[string]func(int) error {
	all := f.deeds()
	must := map[string]func(int) error{}
	for _, name := range []string{"run --rm", "exec", "logs -f"} {
		must[name] = func(n int) error {
			err := all[name](n)
			if err != nil {
				f.Errorf("%s: %v", name, err)
			}
			return err
		}
	}
	return must
}

// The net role is killed: the published ports are back within a second, and
// nothing else notices.
func TestNetRoleKilled(t *testing.T) {
	f := newFixture(t)
	l := f.startLoad()
	deeds := f.steady()
	for round := range f.rounds() {
		c := f.startChaos(deeds)
		time.Sleep(moment(200 * time.Millisecond))
		dead := f.shimInfo().NetPid
		if err := syscall.Kill(dead, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		l.tty.echo(f, fmt.Sprint("outage", round))
		f.eventually(func() string {
			if pid := f.shimInfo().NetPid; pid == dead || pid == 0 {
				return "there is no net role again"
			}
			if err := l.ask(); err != nil {
				return err.Error()
			}
			return ""
		})
		time.Sleep(50 * time.Millisecond)
		c.end()
		l.alive()
		l.known()
		l.check(round)
		f.consistent()
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	l.end(time.Second)
	f.stopCounters(l)
	f.clean()
}

// io is killed: containers run on, a new io adopts them, and what ended in
// between has its exit code.
func TestIORoleKilled(t *testing.T) {
	f := newFixture(t)
	f.cuts = true
	l := f.startLoad()
	deeds := f.deeds()
	for round := range f.rounds() {
		leavers := f.startLeavers()
		c := f.startChaos(deeds)
		time.Sleep(100*time.Millisecond + moment(300*time.Millisecond))
		dead := f.shimInfo().Pid
		if err := syscall.Kill(dead, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.endLeavers(leavers)
		f.eventually(func() string {
			if pid := f.shimInfo().Pid; pid == dead {
				return "there is no io again"
			}
			return ""
		})
		l.alive()
		l.tty.Close()
		f.eventually(func() string {
			s, err := f.hijack("/containers/tty/attach?stream=1&stdin=1&stdout=1&stderr=1", nil)
			if err != nil {
				return err.Error()
			}
			l.tty = s
			return ""
		})
		f.left(leavers)
		l.known()
		c.end()
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

// io becomes another program: nobody notices.
func TestShimUpgraded(t *testing.T) {
	f := newFixture(t)
	l := f.startLoad()
	deeds := f.steady()
	for round := range f.rounds() {
		leavers := f.startLeavers()
		// Before the chaos: what is forked while the file is being written holds it
		// open for writing until its execve, and nobody can execute it so long.
		binary := f.anotherShim(round)
		c := f.startChaos(deeds)
		time.Sleep(moment(200 * time.Millisecond))
		before := f.shimInfo()
		f.upgrade(binary)
		if now := f.shimInfo(); now.Pid != before.Pid || now.Binary != binary {
			t.Fatalf("the shim was %+v and is %+v", before, now)
		}
		l.tty.echo(f, fmt.Sprint("after", round))
		c.end()
		f.endLeavers(leavers)
		f.left(leavers)
		l.alive()
		l.known()
		l.check(round)
		f.consistent()
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	l.end(time.Second) // net is renewed
	f.stopCounters(l)
	f.clean()
}

// A package replaces gantry-shim: the next daemon, or the one that is told to
// reload, has the shim become it, and nothing that runs notices.
func TestShimReplaced(t *testing.T) {
	f := prepareFixture(t)
	bin := filepath.Join(f.Dir, "installed")
	if err := os.CopyFS(bin, os.DirFS(f.Bin)); err != nil {
		t.Fatal(err)
	}
	f.Bin = bin
	f.begin()
	l := f.startLoad()
	for round := range f.rounds() {
		leavers := f.startLeavers()
		if err := os.Rename(f.anotherShim(round), filepath.Join(bin, "gantry-shim")); err != nil {
			t.Fatal(err)
		}
		before := f.shimInfo()
		switch round % 3 {
		case 0:
			if err := syscall.Kill(f.Pid(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		case 1:
			f.Kill(syscall.SIGKILL)
			f.start()
		case 2:
			f.Kill(syscall.SIGTERM)
			f.start()
		}
		f.eventually(func() string {
			now := f.shimInfo()
			if now.Pid != before.Pid {
				t.Fatalf("the shim was %+v and is %+v", before, now)
			}
			if !same(fmt.Sprintf("/proc/%d/exe", now.Pid), filepath.Join(bin, "gantry-shim")) {
				return fmt.Sprintf("the shim is still the one before: %+v", now)
			}
			return ""
		})
		l.alive()
		l.known()
		l.check(round)
		f.endLeavers(leavers)
		f.left(leavers)
	}
	l.end(time.Second) // net is renewed
	f.stopCounters(l)
	f.clean()
}

func same(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// anotherShim makes a gantry-shim that is another file with other contents.
func (f *fixture) anotherShim(n int) string {
	f.Helper()
	b, err := os.ReadFile(filepath.Join(f.Bin, "gantry-shim"))
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.Dir, fmt.Sprint("gantry-shim-", n))
	if err := os.WriteFile(path, append(b, fmt.Sprintf("build %d", n)...), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.Remove(path) })
	return path
}

func (f *fixture) upgrade(binary string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := f.Shim(ctx)
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	if err := c.Upgrade(ctx, binary); err != nil {
		f.Fatal(err)
	}
}
