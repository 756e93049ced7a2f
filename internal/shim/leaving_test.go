package shim

import (
	"log/slog"
	"sync"
	"testing"
	"time"
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
