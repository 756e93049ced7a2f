package container

import (
	"log/slog"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/state"
)

// A daemon that is told to end while it begins has followed no container yet, and ends.
func TestCloseBeforeRestore(t *testing.T) {
	dir := t.TempDir()
	db, err := state.Open(dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	m, err := New(Options{DB: db, DataRoot: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}
