package shim

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The shim lets its own timers be late. What a person runs in a container must be
// as punctual as elsewhere, also of a shim that took over from another.
func TestContainersKeepTheirTimers(t *testing.T) {
	want := slackOf(t, os.Getpid())
	s := newTest(t)
	s.follow()
	check := func() {
		t.Helper()
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := slackOf(t, info.Pid); got == want {
			t.Skipf("the shim may not change the slack of its timers here: %s", got)
		}
		r := s.request("sleep 100")
		if got := slackOf(t, s.start(r).Pid); got != want {
			t.Errorf("a container has timers that may be %s ns late, not %s", got, want)
		}
		s.Signal(t.Context(), r.ID, "", 9, false)
		s.await(EventExit, r.ID, "")
	}
	check()
	if err := s.Upgrade(t.Context(), s.copyBinary(0)); err != nil {
		t.Fatal(err)
	}
	check()
}

func slackOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", pid))
	if err != nil {
		t.Skip(err)
	}
	return strings.TrimSpace(string(b))
}
