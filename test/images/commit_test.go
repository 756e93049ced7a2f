package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// moved is how many bytes the daemon has read and written so far, from files
// and sockets.
func (f *fixture) moved() (total int64) {
	f.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", f.Pid()))
	if err != nil {
		f.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if name, value, _ := strings.Cut(line, ": "); name == "rchar" || name == "wchar" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				f.Fatal(err)
			}
			total += n
		}
	}
	return total
}

// A commit costs what was changed, however large the image is.
func TestCommitMovesOnlyWhatChanged(t *testing.T) {
	f := newFixture(t, "")
	f.ok("run", "--name", "large", "busybox", "sh", "-c", "mkdir /lots; for i in $(seq 300); do echo $i >/lots/$i; done; dd if=/dev/zero of=/big bs=1M count=60")
	f.ok("commit", "large", "large")
	f.ok("rm", "large")
	f.ok("run", "--name", "one", "large", "sh", "-c", "echo changed >/lots/7")
	f.ok("version")
	before := f.moved()
	f.ok("commit", "one", "changed")
	if n := f.moved() - before; n > 1<<20 {
		t.Errorf("%d bytes were read and written to commit a file of 8", n)
	}
	if got := f.ok("run", "--rm", "changed", "sh", "-c", "cat /lots/7 /lots/8; stat -c %s /big"); got != "changed\n8\n62914560" {
		t.Errorf("the image shows %q", got)
	}
}

// A daemon that dies in a commit leaves the container running, not paused, and
// nothing of the image.
func TestKilledInCommit(t *testing.T) {
	f := newFixture(t, "")
	f.ok("run", "-d", "--name", "one", "busybox", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=120; echo ready; while :; do date >/tick; sleep 0.1; done")
	f.until("one", "ready")
	commit := f.Command("docker", "commit", "one", "half")
	if err := commit.Start(); err != nil {
		t.Fatal(err)
	}
	defer commit.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for f.ok("inspect", "-f", "{{.State.Status}}", "one") != "paused" {
		if ctx.Err() != nil {
			t.Fatal("the container was never seen paused")
		}
	}
	f.Kill(9)
	f.start()
	if got := f.ok("inspect", "-f", "{{.State.Status}}", "one"); got != "running" {
		t.Errorf("the container is %s", got)
	}
	if got := f.ok("images", "-q", "half"); got != "" {
		t.Errorf("there is an image: %s", got)
	}
	f.agree("after the kill")
	f.ok("commit", "one", "whole")
	f.agree("after a commit")
}

// smallDisk mounts a file system of so many MiB.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	for _, program := range []string{"mkfs.ext4", "losetup"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	dir := t.TempDir()
	file, point := filepath.Join(dir, "disk"), filepath.Join(dir, "mount")
	if err := os.Mkdir(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, int64(size)<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", file}, {"mount", "-o", "loop", file, point}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("cannot make a small disk: %s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(point, "engine")
}

// A commit that does not fit says so, leaves nothing, and can be repeated.
func TestCommitOnFullDisk(t *testing.T) {
	dir := smallDisk(t, 160)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, dir)
	f.ok("run", "-d", "--name", "one", "busybox", "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=24; echo ready; sleep 1000")
	f.until("one", "ready")
	f.agree("before")
	images := f.ok("images", "-aq", "--no-trunc")
	filler := filepath.Join(filepath.Dir(dir), "filler")
	// The blob fits in the first round, and not in the second.
	for _, free := range []int64{36 << 20, 12 << 20} {
		fill(t, filler, free)
		if out, err := f.try("commit", "one", "full"); err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("with %d bytes free: %q, %v", free, out, err)
		}
		if got := f.ok("images", "-aq", "--no-trunc"); got != images {
			t.Errorf("images: %s; before: %s", got, images)
		}
		if got := f.ok("inspect", "-f", "{{.State.Status}}", "one"); got != "running" {
			t.Errorf("the container is %s", got)
		}
		f.agree("after a commit that failed")
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	f.ok("commit", "one", "full")
	f.ok("run", "--rm", "full", "true")
}

// fill leaves so many bytes free on the disk of a file.
func fill(t *testing.T, file string, free int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(file), &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if size := int64(st.Bavail)*st.Bsize - free; size > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
			t.Fatal(err)
		}
	}
}
