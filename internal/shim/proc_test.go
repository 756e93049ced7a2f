package shim

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// waitFor polls what nobody tells of.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// children returns the children of pid, but for some and its spares.
func children(t testing.TB, pid int, except ...int) []int {
	t.Helper()
	return childrenWho(t, pid, func(stat []byte) bool { return !isSpare(stat) }, except...)
}

// spareProcesses returns the children of pid that wait to be somebody's process.
func spareProcesses(t testing.TB, pid int) []int {
	t.Helper()
	return childrenWho(t, pid, isSpare)
}

func isSpare(stat []byte) bool { return bytes.Contains(stat, []byte("("+spawn.SpareName+")")) }

func childrenWho(t testing.TB, pid int, are func(stat []byte) bool, except ...int) (out []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
next:
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if f[1] != strconv.Itoa(pid) || !are(raw) {
			continue
		}
		for _, x := range except {
			if x == n {
				continue next
			}
		}
		out = append(out, n)
	}
	return out
}

func alive(pid int) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	return f[0] != "Z"
}

// gone is stricter than not alive: the threads of a zombie may still be dying.
func gone(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err != nil
}

func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
