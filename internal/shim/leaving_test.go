package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// A process is forgotten at the moment in which the last of it goes: whichever
// comes first, it is not left in the list of those that are leaving, whose end a
// shim that is told to end waits for.
func TestForgottenWhileLeaving(t *testing.T) {
	h := newHolder(t.TempDir(), slog.New(slog.DiscardHandler))
	for i := range 20 {
		p := newTask(h, key{"container", ""})
		if i%2 == 1 {
			p.exec = "exec"
		}
		h.tasks[p.key] = p
		close(p.ended)
		// Who has waited this long for a mutex, and was woken in vain, passes it on
		// to who comes after, and the processor as well.
		h.mu.Lock()
		var both sync.WaitGroup
		both.Go(func() { h.left(p) })
		time.Sleep(3 * time.Millisecond)
		both.Go(func() {
			if err := h.forget(p.key); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(3 * time.Millisecond)
		h.mu.Unlock()
		h.mu.Lock()
		time.Sleep(3 * time.Millisecond)
		h.mu.Unlock()
		both.Wait()
		if len(h.leaving) > 0 || len(h.tasks) > 0 {
			t.Fatalf("after %d processes %d are leaving and %d are held", i+1, len(h.leaving), len(h.tasks))
		}
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
}

// A container that was forgotten while a client held its end up ends with the next
// program: the client gets all output, and nothing is left.
func TestUpgradeWhileLeaving(t *testing.T) {
	s := newTest(t)
	s.follow()
	r := s.request("head -c 100000 /bin/busybox; exit 4")
	c, theirs := s.ends()
	// With that it takes less than it gets, and the pipe the rest.
	if err := unix.SetsockoptInt(int(theirs.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<15); err != nil {
		t.Fatal(err)
	}
	r.Attach = []AttachRequest{{Stdout: true}}
	if _, err := s.Start(t.Context(), r, nil, theirs); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	s.await(EventExit, r.ID, "")
	if err := s.Forget(t.Context(), r.ID, ""); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.root, "containers", r.ID)
	raw, err := os.ReadFile(filepath.Join(dir, "state.json"))
	var rec record
	if err = errors.Join(err, json.Unmarshal(raw, &rec)); err != nil || rec.Cgroup == "" {
		t.Fatalf("nothing held it up: %s, %v", raw, err)
	}
	if err := s.Upgrade(t.Context(), s.copyBinary(0)); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("it is remembered: %+v, %v", list, err)
	}
	want, _ := os.ReadFile(filepath.Join(s.rootfs, "bin/busybox"))
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want[:100000]) {
		t.Errorf("the client got %d bytes, %v", len(got), err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) && !cgroup.New(rec.Cgroup).Exists() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("something is left of it: %v", err)
		}
	}
}
