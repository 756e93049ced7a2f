package shim

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pss is the memory of a process, in KB, with shared pages counted in part.
func pss(t testing.TB, pid int) (kb int) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
			kb, _ = strconv.Atoi(strings.Fields(v)[0])
		}
	}
	return kb
}

// An idle container costs next to nothing: the budget is 0.1 MB.
func TestMemoryOfIdleContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts 100 containers")
	}
	s := newTest(t)
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := func() int { return pss(t, info.Pid) + pss(t, info.NetPid) }
	empty := sum()
	const n = 100
	for range n {
		r := s.request("")
		r.Spec = mustJSON(s.spec("sleep", "1000"))
		s.start(r)
	}
	full := sum()
	for deadline := time.Now().Add(5 * time.Second); full-empty > n*70 && time.Now().Before(deadline); full = sum() {
		time.Sleep(10 * time.Millisecond) // until what starting them took was given back (package heap)
	}
	t.Logf("empty %d KB, with %d containers %d KB: %.1f KB each (io %d, net %d)", empty, n, full,
		float64(full-empty)/n, pss(t, info.Pid), pss(t, info.NetPid))
	if !raceEnabled && full-empty > n*100 {
		t.Errorf("an idle container costs %d KB", (full-empty)/n)
	}
}

// BenchmarkStart is the whole life of a container without a network, as the
// daemon sees it.
func BenchmarkStart(b *testing.B) {
	s := newTest(b)
	s.follow()
	for b.Loop() {
		r := s.request("")
		r.Spec = mustJSON(s.spec("true"))
		s.start(r)
		s.await(EventExit, r.ID, "")
		s.Forget(b.Context(), r.ID, "")
	}
}

func BenchmarkExec(b *testing.B) {
	s := newTest(b)
	s.follow()
	r := s.request("")
	r.Spec = mustJSON(s.spec("sleep", "1000"))
	s.start(r)
	process := mustJSON(s.spec("true").Process)
	for i := 0; b.Loop(); i++ {
		exec := fmt.Sprintf("e%d", i)
		if _, err := s.Exec(b.Context(), &ExecRequest{ID: r.ID, ExecID: exec, Process: process}, nil); err != nil {
			b.Fatal(err)
		}
		s.await(EventExit, r.ID, exec)
		s.Forget(b.Context(), r.ID, exec)
	}
	s.Signal(b.Context(), r.ID, "", syscall.SIGKILL, false)
}

// BenchmarkLog is what `yes` and longer lines reach through a pipe into a file.
func BenchmarkLog(b *testing.B) {
	for _, tc := range []struct{ name, script string }{
		{"yes", "yes | head -c 67108864"},
		{"lines", "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 | head -c 67108864"},
	} {
		b.Run(tc.name, func(b *testing.B) {
			s := newTest(b)
			s.follow()
			b.SetBytes(64 << 20)
			for b.Loop() {
				r := s.request(tc.script)
				s.start(r)
				s.await(EventExit, r.ID, "")
			}
		})
	}
}
