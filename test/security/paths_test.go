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
	attacker(t, "swap", "-v", "hostile:/volume")
	t.Cleanup(func() { engine.Run("volume", "rm", "-f", "hostile") })
	marker := filepath.Join(t.TempDir(), "on-the-host")
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		out, err := engine.Run("run", "--rm", "--network", "none", "--mount", "type=volume,src=hostile,dst=/m,volume-subpath=place",
			"busybox", "ls", "/m"+marker)
		if err == nil && strings.Contains(out, "on-the-host") {
			t.Fatal("the host is mounted in a container")
		}
	}
}
