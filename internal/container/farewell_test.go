package container_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/enginetest"
	"github.com/gantry-containers/gantry/internal/state"
)

// A daemon that dies in the middle of the removal of a container that removes itself
// leaves its exit code to the next one: in the record, or, when that is gone, with the
// shim.
func TestExitCodeOfWhatWasRemoved(t *testing.T) {
	e := enginetest.Running(t)
	for name, erased := range map[string]bool{"record": false, "shim": true} {
		id, err := e.Run("run", "-d", "--rm", "--network", "none", "busybox", "sh", "-c", "trap 'exit 7' TERM; while :; do usleep 10000; done")
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s, err := e.Shim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			s.Signal(t.Context(), id, "", syscall.SIGTERM, false)
			list, err := s.List(t.Context())
			if err == nil && len(list) == 1 && !list[0].Running {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the container does not end: %+v, %v", list, err)
			}
		}
		if erased {
			db, err := state.Open(e.DataRoot(), e.ExecRoot())
			if err != nil {
				t.Fatal(err)
			}
			if err := state.NewTable[container.Record](db, "containers").Delete(id); err != nil {
				t.Fatal(err)
			}
			db.Close()
		}
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if code, err := e.Run("wait", id); err != nil || strings.TrimSpace(code) != "7" {
			t.Errorf("of the %s the next daemon knows %q, %v", name, code, err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if list, err := s.List(t.Context()); err == nil && len(list) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the shim was not told to forget the container")
			}
		}
	}
}
