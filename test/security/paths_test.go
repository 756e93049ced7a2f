package security

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A part of a volume that another container keeps replacing by a symlink is
// that part or nothing, never the host (CVE-2021-30465).
func TestSubpathOfAHostileVolume(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "on-the-host"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Run("volume", "rm", "-f", "hostile") })
	attacker(t, "swap", "-e", "TARGET="+host, "-v", "hostile:/volume")
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		out, err := engine.Run("run", "--rm", "--network", "none", "--mount", "type=volume,src=hostile,dst=/m,volume-subpath=place",
			"busybox", "ls", "/m")
		if err == nil && strings.Contains(out, "on-the-host") {
			t.Fatal("the host is mounted in a container")
		}
	}
}
