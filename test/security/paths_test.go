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

// What is copied into one container before its start decides who that one runs
// as, and nobody else: not another container of the same image.
func TestUsersOfOneContainerAreItsOwn(t *testing.T) {
	passwd := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(passwd, []byte("root:x:0:0::/:/bin/sh\nnobody:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(archive, busybox(t), 0o644); err != nil {
		t.Fatal(err)
	}
	gantry(t, "import", archive, "users")
	t.Cleanup(func() { engine.Run("rmi", "-f", "users") })
	first := gantry(t, "create", "-u", "nobody", "users", "id", "-u")
	t.Cleanup(func() { engine.Run("rm", "-f", first) })
	gantry(t, "cp", passwd, first+":/etc/passwd")
	if out := gantry(t, "start", "-a", first); out != "0" {
		t.Errorf("with a passwd of its own the container runs as %s", out)
	}
	if out := gantry(t, "run", "--rm", "-u", "nobody", "users", "id", "-u"); out != "65534" {
		t.Errorf("a second container of the image runs as %s", out)
	}
}
