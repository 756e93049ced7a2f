package fault

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// kills is how often the daemon is killed in each of the operations on images:
// twice as often as in others.
func (f *fixture) kills() int {
	f.Helper()
	return f.times(2, 3)
}

// operation is something with images that the daemon is killed in.
type operation struct {
	before func(round int)          // makes the ground
	do     func(round int) []string // the command
	beside []string                 // another that runs at the same time, and may fail
	after  func(round int)          // looks at what came of it, once it was done to its end
}

// killIn kills the daemon at random moments of an operation. Each time the store
// has to open, to agree with itself, and to let the operation be done to its end.
func (f *fixture) killIn(o operation) {
	f.Helper()
	var longest time.Duration
	for round := range f.kills() + 1 {
		o.before(round)
		command := o.do(round)
		start := time.Now()
		ended := make(chan error, 1)
		go func() {
			_, err := f.try(command...)
			ended <- err
		}()
		if round == 0 { // how long is it?
			if err := <-ended; err != nil {
				f.Fatal(err)
			}
			longest = time.Since(start)
			f.Logf("gantry %s takes %v", strings.Join(command[:1], " "), longest)
		} else {
			beside := make(chan struct{})
			go func() {
				defer close(beside)
				if o.beside != nil {
					f.try(o.beside...)
				}
			}()
			time.Sleep(moment(longest + longest/10))
			if err := f.Kill(syscall.SIGKILL); err != nil {
				f.Fatal(err)
			}
			<-beside
			if err := <-ended; err == nil {
				f.worked["after its end"]++
			} else {
				f.worked["in the middle"]++
			}
			f.start()
			f.agree(fmt.Sprintf("round %d, killed", round))
			if _, err := f.try(command...); err != nil {
				f.Fatalf("round %d: after the kill: %v", round, err)
			}
		}
		o.after(round)
		f.agree(fmt.Sprintf("round %d, done", round))
	}
	f.Logf("killed %v", f.worked)
	f.clean()
}

// layered makes an image of four layers, each with a file of random bytes, and
// saves it as an archive. It returns the archive and the sums of the files.
func (f *fixture) layered() (archive string, sums string) {
	f.Helper()
	from := "busybox"
	for i := range 3 {
		f.ok("run", "--name", "maker", from, "sh", "-c", fmt.Sprintf("head -c 2500000 /dev/urandom >/data%d", i))
		f.ok("commit", "maker", "layered:1")
		f.ok("rm", "maker")
		from = "layered:1"
	}
	sums = f.sums("layered:1")
	archive = filepath.Join(f.Dir, "layered.tar")
	f.ok("save", "-o", archive, "layered:1")
	f.ok("rmi", "-f", "layered:1")
	f.ok("image", "prune", "-f")
	return archive, sums
}

func (f *fixture) sums(image string) string {
	f.Helper()
	return f.ok("run", "--rm", image, "sh", "-c", "cat /data* | sha256sum")
}

func (f *fixture) same(image, sums string) {
	f.Helper()
	if got := f.sums(image); got != sums {
		f.Fatalf("the files of %s are not what they were: %s, want %s", image, got, sums)
	}
}

func (f *fixture) gone(images ...string) {
	f.Helper()
	for _, image := range images {
		if _, err := f.try("rmi", "-f", image); err != nil && !strings.Contains(err.Error(), "No such image") {
			f.Fatal(err)
		}
	}
}

func TestKilledInPull(t *testing.T) {
	f := newFixture(t)
	archive, sums := f.layered()
	ref := f.serve(archive).ref()
	f.killIn(operation{
		before: func(int) { f.gone(ref) },
		do:     func(int) []string { return []string{"pull", "-q", ref} },
		after:  func(int) { f.same(ref, sums) },
	})
}

// Two clients pull the same image.
func TestKilledInTwoPulls(t *testing.T) {
	f := newFixture(t)
	archive, sums := f.layered()
	ref := f.serve(archive).ref()
	f.killIn(operation{
		before: func(int) { f.gone(ref) },
		do:     func(int) []string { return []string{"pull", "-q", ref} },
		beside: []string{"pull", "-q", ref},
		after:  func(int) { f.same(ref, sums) },
	})
}

// One client pulls what another removes.
func TestKilledInPullAndRemove(t *testing.T) {
	f := newFixture(t)
	archive, sums := f.layered()
	ref := f.serve(archive).ref()
	f.killIn(operation{
		before: func(round int) {
			if round%2 == 0 {
				f.gone(ref)
			}
		},
		do:     func(int) []string { return []string{"pull", "-q", ref} },
		beside: []string{"rmi", "-f", ref},
		after:  func(int) { f.same(ref, sums) },
	})
}

// An image is pulled and removed at once, by several, without any kill: each gets
// what it asked for or a sentence, and the store agrees with itself.
func TestPullAndRemoveAtOnce(t *testing.T) {
	f := newFixture(t)
	archive, sums := f.layered()
	ref := f.serve(archive).ref()
	for round := range f.kills() {
		c := f.startChaos(map[string]func(int) error{
			"pull": func(int) error {
				_, err := f.try("pull", "-q", ref)
				if err != nil {
					f.Errorf("round %d: %v", round, err)
				}
				return err
			},
			"pull too": func(int) error { _, err := f.try("pull", "-q", ref); return err },
			"rmi":      func(int) error { _, err := f.try("rmi", ref); return err },
			"run": func(int) error {
				out, err := f.try("run", "--rm", "--pull", "never", ref, "sh", "-c", "cat /data* | sha256sum")
				if err == nil && out != sums {
					f.Errorf("round %d: the files are %s, want %s", round, out, sums)
				}
				return err
			},
		})
		time.Sleep(300 * time.Millisecond)
		c.end()
		f.agree(fmt.Sprint("round ", round))
	}
	f.ok("pull", "-q", ref)
	f.same(ref, sums)
	f.clean()
}

// What a killed daemon had of a blob is not sent again.
func TestPullResumesAfterKill(t *testing.T) {
	const size = 48 << 20
	f := newFixture(t)
	f.ok("run", "--name", "maker", "busybox", "dd", "if=/dev/urandom", "of=/data", "bs=1M", fmt.Sprintf("count=%d", size>>20))
	f.ok("commit", "maker", "large:1")
	f.ok("rm", "maker")
	sums := f.sums("large:1")
	archive := filepath.Join(f.Dir, "large.tar")
	f.ok("save", "-o", archive, "large:1")
	f.gone("large:1")
	registry := f.serve(archive)
	first := make(chan error, 1)
	go func() {
		_, err := f.try("pull", "-q", registry.ref())
		first <- err
	}()
	f.eventually(func() string {
		if n := registry.total(); n < size/2 {
			return fmt.Sprintf("the registry has sent %d bytes", n)
		}
		return ""
	})
	if err := f.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err == nil {
		t.Fatal("a pull without a daemon succeeded")
	}
	f.start()
	f.agree("after the kill")
	before := registry.total()
	out := f.ok("pull", registry.ref())
	if !strings.Contains(out, "Resum") {
		t.Errorf("nobody is told that the pull goes on where it stopped:\n%s", out)
	}
	// What was on its way when the daemon died is sent again: what sockets hold.
	again := registry.total() - size
	if t.Logf("%d bytes were sent, then %d", before, registry.total()-before); again > size/4 || registry.ranges == 0 {
		t.Errorf("%d bytes were sent twice, in %d requests for a part", again, registry.ranges)
	}
	f.same(registry.ref(), sums)
	f.agree("after the pull")
	f.clean()
}

func TestKilledInLoad(t *testing.T) {
	f := newFixture(t)
	archive, sums := f.layered()
	f.killIn(operation{
		before: func(int) { f.gone("layered:1") },
		do:     func(int) []string { return []string{"load", "-q", "-i", archive} },
		after:  func(int) { f.same("layered:1", sums) },
	})
}

func TestKilledInPush(t *testing.T) {
	f := newFixture(t)
	addr := enginetest.RegistryFor(t)
	archive, sums := f.layered()
	ref := func(round int) string { return fmt.Sprintf("%s/pushed%d:1", addr, round) }
	f.killIn(operation{
		before: func(round int) {
			// Made anew, so that nothing of it is in the registry under any name.
			f.ok("load", "-q", "-i", archive)
			f.ok("run", "--name", "maker", "layered:1", "sh", "-c", "head -c 2500000 /dev/urandom >/more")
			f.ok("commit", "maker", ref(round))
			f.ok("rm", "maker")
		},
		do: func(round int) []string { return []string{"push", "-q", ref(round)} },
		after: func(round int) {
			id := f.ok("inspect", "-f", "{{.Id}}", ref(round))
			f.gone(ref(round), "layered:1")
			f.ok("pull", "-q", ref(round))
			if got := f.ok("inspect", "-f", "{{.Id}}", ref(round)); got != id {
				t.Fatalf("%s came back as %s", id, got)
			}
			f.same(ref(round), sums)
			f.gone(ref(round))
		},
	})
}

func TestKilledInCommit(t *testing.T) {
	f := newFixture(t)
	f.ok("run", "-d", "--name", "writer", "busybox", "sh", "-c", "while :; do sleep 1; done")
	sums := ""
	f.killIn(operation{
		before: func(int) {
			f.gone("committed:1")
			f.ok("exec", "writer", "sh", "-c", "for i in 1 2 3; do head -c 2500000 /dev/urandom >/data$i; done")
			sums = f.ok("exec", "writer", "sh", "-c", "cat /data* | sha256sum")
		},
		do: func(int) []string { return []string{"commit", "writer", "committed:1"} },
		after: func(int) {
			f.same("committed:1", sums)
			if s := f.mustInspect("writer"); s.State.Status != "running" {
				t.Fatalf("writer is %+v", s.State)
			}
			f.ok("exec", "writer", "true")
			f.ok("image", "prune", "-f") // what was committed before the kill and lost its name
		},
	})
}

func TestKilledInPrune(t *testing.T) {
	f := newFixture(t)
	archive, _ := f.layered()
	f.ok("create", "--name", "keeper", "busybox", "true")
	f.killIn(operation{
		before: func(int) {
			f.ok("load", "-q", "-i", archive)
			f.ok("tag", "layered:1", "layered:2")
			for _, name := range []string{"one", "two"} {
				f.ok("import", archive, name)
			}
		},
		do: func(int) []string { return []string{"image", "prune", "-a", "-f"} },
		after: func(int) {
			if got := f.ok("images", "--format", "{{.Repository}}:{{.Tag}}"); got != "busybox:latest" {
				t.Fatalf("there is %s", got)
			}
			if got := f.images(); got.Layers != 1 || got.Ingest != 0 {
				t.Fatalf("there is %+v", got)
			}
		},
	})
}
