package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newSmallFixture is an engine whose data root is a disk of so many bytes.
func newSmallFixture(t *testing.T, size int) *fixture {
	t.Helper()
	f := prepareFixture(t)
	if err := os.MkdirAll(f.DataRoot(), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", f.DataRoot(), "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	f.begin()
	return f
}

// newLoopFixture is an engine whose data root is an ext4 of so many bytes, where
// a file may turn out not to fit when it is synced.
func newLoopFixture(t *testing.T, size int64) *fixture {
	t.Helper()
	f := prepareFixture(t)
	disk := filepath.Join(f.Dir, "disk")
	err := errors.Join(os.MkdirAll(f.DataRoot(), 0o711), os.WriteFile(disk, nil, 0o600), os.Truncate(disk, size))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", disk}, {"mount", "-o", "loop", disk, f.DataRoot()}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("cannot make a small disk: %s: %v: %s", args[0], err, out)
		}
	}
	f.begin()
	return f
}

// What does not fit is refused with a sentence, wherever in a pull, a load or a
// commit the disk is found to be full; the store agrees with itself, and with
// space the same is done to its end.
func TestFullDiskInStore(t *testing.T) {
	f := newLoopFixture(t, 96<<20)
	archive, sums := f.layered()
	ref := f.serve(archive).ref()
	f.ok("run", "-d", "--name", "writer", "busybox", "sh", "-c", "while :; do sleep 1; done")
	f.ok("exec", "writer", "sh", "-c", "for i in 0 1 2; do head -c 2500000 /dev/urandom >/data$i; done")
	written := f.ok("exec", "writer", "sh", "-c", "cat /data* | sha256sum")
	for round := range f.times(1, 3) {
		for image, command := range map[string][]string{
			ref:           {"pull", "-q", ref},
			"layered:1":   {"load", "-q", "-i", archive},
			"committed:1": {"commit", "writer", "committed:1"},
		} {
			free := f.fillBut(int64(moment(24 << 20)))
			_, err := f.try(command...)
			if err != nil && !strings.Contains(err.Error(), "no space left on device") {
				t.Errorf("gantry %s does not say why: %v", command[0], err)
			}
			free()
			if err == nil {
				f.worked["fitted"]++
			} else {
				f.worked["did not fit"]++
			}
			f.agree(fmt.Sprintf("round %d, %s on a full disk", round, command[0]))
			if err != nil {
				f.ok(command...)
			}
			if want := sums; image == "committed:1" {
				f.same(image, written)
			} else {
				f.same(image, want)
			}
			f.gone(image)
			f.agree(fmt.Sprintf("round %d, %s", round, command[0]))
		}
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Log(f.worked)
	if s := f.mustInspect("writer"); s.State.Status != "running" {
		t.Errorf("writer is %+v", s.State)
	}
	f.clean()
}

// fill leaves no byte free in the data root; the function it returns gives the
// space back.
func (f *fixture) fill() (free func()) {
	f.Helper()
	return f.fillBut(0)
}

// fillBut is fill, but leaves so many bytes.
func (f *fixture) fillBut(left int64) (free func()) {
	f.Helper()
	path := filepath.Join(f.DataRoot(), "filler")
	w, err := os.Create(path)
	if err != nil {
		f.Fatal(err)
	}
	defer w.Close()
	defer func() {
		if err := w.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
			f.Fatal(err)
		}
		if s, err := w.Stat(); err != nil || left > 0 && w.Truncate(max(0, s.Size()-left)) != nil {
			f.Fatal("cannot leave some bytes free")
		}
	}()
	for size := 1 << 20; size > 0; size /= 4 {
		b := make([]byte, size)
		for err = nil; err == nil; {
			_, err = w.Write(b)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			f.Fatal(err)
		}
	}
}

// stored counts what is in the data root, once nothing is on its way there or out
// of it.
func (f *fixture) stored() string {
	f.Helper()
	f.eventually(func() string {
		if now := f.images(); now.Ingest != 0 {
			return fmt.Sprintf("something is still being stored or removed: %+v", now)
		}
		return ""
	})
	return fmt.Sprintf("%+v, %d snapshots, %d containers", f.images(),
		entries(filepath.Join(f.DataRoot(), "*", "snapshots")), entries(filepath.Join(f.DataRoot(), "containers")))
}

// The disk is full: what needs space is refused with a sentence and leaves
// nothing, containers run on, and with space there is an engine as before.
func TestFullDisk(t *testing.T) {
	f := newSmallFixture(t, 96<<20)
	archive := filepath.Join(f.Dir, "busybox.tar")
	f.ok("save", "-o", archive, "busybox")
	f.ok("run", "-d", "--name", "writer", "busybox", "sh", "-c",
		`trap 'exit 7' TERM; p=$(printf %1000s x); i=0; while :; do i=$((i+1)); echo "line $i $p"; echo $i >/dev/shm/n; usleep 2000; done`)
	for round := range f.rounds() {
		f.ok("create", "--name", "victim", "busybox", "true")
		before := f.stored()
		free := f.fill()
		f.refused("load", "-i", archive)
		f.refused("import", archive, "other")
		f.refused("cp", archive, "writer:/copy")
		f.status(http.MethodPost, "/images/create?fromSrc=-&repo=other", archive)
		f.advances("writer")
		if _, err := f.try("run", "--rm", "busybox", "true"); err != nil && !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("run says: %v", err)
		}
		if out, err := f.try("exec", "writer", "echo", "still here"); err != nil || out != "still here" {
			t.Errorf("exec on a full disk: %q, %v", out, err)
		}
		// To free space is possible without any.
		f.ok("rm", "victim")
		free()
		f.ok("exec", "writer", "rm", "-f", "/copy")
		f.ok("create", "--name", "victim", "busybox", "true")
		if after := f.stored(); after != before {
			t.Errorf("left behind: before %s, after %s", before, after)
		}
		f.ok("rm", "victim")
		last := f.increasing("writer")
		f.eventually(func() string {
			if now := f.increasing("writer"); now <= last {
				return fmt.Sprintf("the log stands at line %d", now)
			}
			return ""
		})
		f.ok("load", "-i", archive)
		f.ok("import", archive, "other")
		f.ok("rmi", "other")
		if out := f.ok("run", "--rm", "busybox", "echo", "works"); out != "works" {
			t.Errorf("run says %q", out)
		}
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	f.ok("stop", "writer")
	if s := f.mustInspect("writer"); s.State.ExitCode != 7 {
		t.Errorf("writer is %+v", s.State)
	}
	f.clean()
}

// refused runs a command that cannot work for want of space.
func (f *fixture) refused(args ...string) {
	f.Helper()
	_, err := f.try(args...)
	switch {
	case err == nil:
		f.Errorf("gantry %s works on a full disk", strings.Join(args, " "))
	case !strings.Contains(err.Error(), "no space left on device"):
		f.Errorf("gantry %s does not say why: %v", strings.Join(args, " "), err)
	}
}

// status sends an archive and looks at the answer: 500 and a sentence, or the
// sentence in a stream that had begun already.
func (f *fixture) status(method, path, archive string) {
	f.Helper()
	r, err := os.Open(archive)
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	q, _ := http.NewRequestWithContext(context.Background(), method, "http://engine"+path, r)
	answer, err := f.api().Do(q)
	if err != nil {
		f.Error(err)
		return
	}
	defer answer.Body.Close()
	b, _ := io.ReadAll(answer.Body)
	if !strings.Contains(string(b), "no space left on device") || answer.StatusCode != 500 && answer.StatusCode != 200 {
		f.Errorf("%s %s: %s: %s", method, path, answer.Status, b)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if !json.Valid([]byte(line)) {
			f.Errorf("%s %s answers %q", method, path, line)
		}
	}
}

// advances fails if the container does not get on.
func (f *fixture) advances(name string) {
	f.Helper()
	first := -1
	f.eventually(func() string {
		out, err := f.try("exec", name, "cat", "/dev/shm/n")
		if err != nil {
			return err.Error()
		}
		n, err := strconv.Atoi(out)
		if err != nil {
			return err.Error()
		}
		if first < 0 {
			first = n
		}
		// Lines of 1000 bytes: more than a pipe holds.
		if n > first+100 {
			return ""
		}
		return fmt.Sprintf("%s stands at %d", name, n)
	})
}

// increasing fails if a line is in a log twice, out of order or damaged. Lines
// may be missing: there was no space for them. It returns the last.
func (f *fixture) increasing(name string) int {
	f.Helper()
	out, err := f.try("logs", name)
	if err != nil {
		f.Fatal(err)
	}
	last := 0
	for _, line := range strings.Split(out, "\n") {
		number, rest, _ := strings.Cut(strings.TrimPrefix(line, "line "), " ")
		n, err := strconv.Atoi(number)
		if err != nil || n <= last || len(rest) != 1000 {
			f.Fatalf("after line %d the log of %s has %q", last, name, line)
		}
		last = n
	}
	return last
}
