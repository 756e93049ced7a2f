package container_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// dirs are the directories of containers, those made ahead, and writable layers.
type dirs struct{ containers, ahead, layers, layersAhead int }

func dirsOf(e *enginetest.Engine) dirs {
	count := func(pattern string) int {
		list, _ := filepath.Glob(filepath.Join(e.DataRoot(), pattern))
		return len(list)
	}
	return dirs{count("containers/*"), count("ahead/*"), count("overlayfs/snapshots/*"), count("overlayfs/ahead/*")}
}

func awaitDirs(t *testing.T, e *enginetest.Engine, want dirs) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); dirsOf(e) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there are %+v, not %+v", dirsOf(e), want)
		}
	}
}

// Directories that were made ahead are no containers: not to df, not to prune, not
// to the next daemon after one that was killed. Many containers at once share none.
func TestDirectoriesMadeAhead(t *testing.T) {
	e := enginetest.Running(t)
	ok := func(args ...string) string {
		t.Helper()
		out, err := e.Run(args...)
		if err != nil {
			t.Fatal(args, err)
		}
		return out
	}
	start := func() {
		t.Helper()
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(e.DataRoot(), "overlayfs")); err != nil {
		t.Skip("nothing is made ahead without overlayfs")
	}
	awaitDirs(t, e, dirs{}) // an engine without containers holds nothing
	ok("run", "--rm", "--network", "none", "busybox", "true")
	awaitDirs(t, e, dirs{ahead: 4, layersAhead: 4})
	if df := ok("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}"); !strings.Contains(df, "Containers 0 0B") {
		t.Errorf("system df counts what was made ahead:\n%s", df)
	}

	// Of one that was not started /etc/hosts is the image's, which has none.
	ok("create", "--name", "new", "--network", "none", "busybox", "cat", "/etc/hosts", "/etc/hostname")
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if _, err := e.Run("cp", "new:/etc/"+name, filepath.Join(e.Dir, name)); err == nil {
			t.Errorf("a container that was never started has a file /etc/%s", name)
		}
	}
	if out := ok("start", "-a", "new"); !strings.Contains(out, "localhost") {
		t.Errorf("its files are %q", out)
	}
	if ok("cp", "new:/etc/hosts", filepath.Join(e.Dir, "hosts")); !strings.Contains(read(t, filepath.Join(e.Dir, "hosts")), "localhost") {
		t.Error("/etc/hosts of one that has ended is not what it saw")
	}
	ok("rm", "new")

	for life := range 3 {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if out, err := e.Run("create", "--name", fmt.Sprint("c", i), "busybox", "true"); err != nil {
					t.Error(out, err)
				}
			})
		}
		wg.Wait()
		awaitDirs(t, e, dirs{20, 4, 20, 4})
		ok("container", "prune", "-f")
		awaitDirs(t, e, dirs{ahead: 4, layersAhead: 4})
		if life == 2 {
			break
		}
		if err := e.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := dirsOf(e); got != (dirs{ahead: 4, layersAhead: 4}) {
			t.Errorf("the daemon that was killed left %+v", got)
		}
		start()
		awaitDirs(t, e, dirs{})
	}
	ok("create", "busybox", "true")
	if err := e.Kill(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := dirsOf(e); got != (dirs{containers: 1, layers: 1}) {
		t.Errorf("the daemon that ended left %+v", got)
	}
	// On another file system nothing can be renamed: then it is made in place.
	elsewhere := t.TempDir()
	if err := syscall.Mount("tmpfs", elsewhere, "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	defer syscall.Unmount(elsewhere, syscall.MNT_DETACH)
	containers := filepath.Join(e.DataRoot(), "containers")
	if err := os.RemoveAll(containers); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, containers); err != nil {
		t.Fatal(err)
	}
	start()
	for range 2 {
		ok("run", "--rm", "--network", "none", "busybox", "true")
		awaitDirs(t, e, dirs{ahead: 4, layers: 1, layersAhead: 4})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What a person would lose: a container that was never started, and yet has changes
// and a size; a volume with what is not the image's.
func TestEntriesMadeAhead(t *testing.T) {
	e := enginetest.Running(t)
	run := func(args ...string) string {
		t.Helper()
		out, err := e.Run(args...)
		if err != nil {
			t.Fatal(args, err)
		}
		return strings.TrimSpace(out)
	}
	made := func() int {
		list, _ := filepath.Glob(filepath.Join(e.DataRoot(), "overlayfs/ahead/*/fs/etc/mtab"))
		return len(list)
	}
	if run("info", "--format", "{{.Driver}}") != "overlayfs" {
		t.Skip("nothing is made ahead without overlayfs")
	}
	run("run", "--rm", "--network", "none", "busybox", "true")
	run("run", "--rm", "--network", "none", "busybox", "true")
	awaitDirs(t, e, dirs{ahead: 4, layersAhead: 4})
	if made() == 0 {
		t.Fatal("nothing is made ahead")
	}
	run("create", "--name", "cc", "--network", "none", "busybox", "sh", "-c", "readlink /etc/mtab; wc -l </etc/hosts; touch /etc/own")
	if out := run("diff", "cc"); out != "" {
		t.Errorf("it was not started, and has changed:\n%s", out)
	}
	if out := run("ps", "-as", "--format", "{{.Size}}"); !strings.HasPrefix(out, "0B") {
		t.Errorf("it was not started, and has a size: %s", out)
	}
	if out := run("start", "-a", "cc"); !strings.HasPrefix(out, "/proc/mounts\n") || strings.HasSuffix(out, "\n0") {
		t.Errorf("it sees %q", out)
	}
	if out := run("diff", "cc"); out != "C /etc\nA /etc/own" {
		t.Errorf("it changed:\n%s", out)
	}
	if out := run("run", "--network", "none", "-v", "of-etc:/etc", "busybox", "ls", "/etc"); strings.Contains(out, "mtab") || !strings.Contains(out, "passwd") {
		t.Errorf("in a volume on /etc there are %q", out)
	}
}
