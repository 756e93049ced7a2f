package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A second daemon must not take the file of one that runs, and must not be kept
// away by one that is gone.
func TestPidfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "gantryd.pid")
	for range 2 {
		if err := writePidfile(path); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != strconv.Itoa(os.Getpid()) {
		t.Errorf("wrote %q %v", data, err)
	}
	live := exec.Command("sleep", "60")
	if err := live.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(live.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writePidfile(path); err == nil || !strings.Contains(err.Error(), "still running") {
		t.Errorf("the file of a live process: %v", err)
	}
	live.Process.Kill()
	live.Wait()
	if err := writePidfile(path); err != nil {
		t.Errorf("the file of a dead process: %v", err)
	}
}
