package snapshottest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/thread"
)

func testLifecycle(t *testing.T, s snapshot.Snapshotter) {
	ctx := context.Background()
	layer := Unpack(t, s, File{Name: "a", Content: "1"})
	prepare(t, s, "one", layer)
	prepare(t, s, "two", layer)
	if err := s.Prepare(ctx, "one", nil, snapshot.PrepareOptions{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("an id that is taken: %v", err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x", strings.Repeat("x", 300)} {
		if err := s.Prepare(ctx, id, nil, snapshot.PrepareOptions{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("the id %q: %v", id, err)
		}
	}
	inside(t, s, "one", func(dir string) { must(t, os.WriteFile(dir+"/a", []byte("2"), 0o644)) })
	inside(t, s, "two", func(dir string) { want(t, "the other", tree(t, dir), "a=1") })
	ids, err := s.Snapshots(ctx)
	slices.Sort(ids)
	if err != nil || !slices.Equal(ids, []string{"one", "two"}) {
		t.Errorf("snapshots %q, %v", ids, err)
	}
	must(t, s.Remove(ctx, "one"))
	prepare(t, s, "one", layer)
	inside(t, s, "one", func(dir string) { want(t, "made again", tree(t, dir), "a=1") })
	for what, err := range map[string]error{
		"Remove":  s.Remove(ctx, "no"),
		"Diff":    s.Diff(ctx, "no", nil, io.Discard),
		"Mounts":  second(s.Mounts("no")),
		"Changes": second(s.Changes(ctx, "no")),
	} {
		if !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s of nothing: %v", what, err)
		}
	}
}

// What inspect shows of layers is where they are.
func testLayerDirs(t *testing.T, s snapshot.Snapshotter) {
	layers := []digest.Digest{Unpack(t, s, File{Name: "a", Content: "1"}), Unpack(t, s, File{Name: "b", Content: "2"}), Unpack(t, s, File{Name: "c", Content: "3"})}
	dirs := s.LayerDirs(layers)
	if len(dirs) == 0 {
		return // a driver whose layers are in no directory of their own
	}
	lower := strings.Split(dirs["LowerDir"], ":")
	if len(lower) != 2 {
		t.Fatalf("the directories are %q", dirs)
	}
	for dir, content := range map[string]string{lower[1]: "a=1", lower[0]: "b=2", dirs["UpperDir"]: "c=3"} {
		want(t, dir, tree(t, dir), content)
	}
	if dirs := s.LayerDirs([]digest.Digest{digest.FromString("no")}); len(dirs) != 0 {
		t.Errorf("of nothing: %q", dirs)
	}
}

// Many containers of two images at once, again and again: each gets a tree of its
// own, with the root directory of its image.
func testSnapshotsAtOnce(t *testing.T, s snapshot.Snapshotter) {
	images := []digest.Digest{
		Unpack(t, s, File{Name: "./", Mode: 0o711, UID: 7}, File{Name: "a", Content: "0"}),
		Unpack(t, s, File{Name: "./", Mode: 0o755, Xattrs: map[string]string{"user.of": "one"}}, File{Name: "a", Content: "1"}),
	}
	for range 5 {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				id := fmt.Sprint(i)
				err := s.Prepare(t.Context(), id, images[i%2:i%2+1], snapshot.PrepareOptions{Ephemeral: i%3 == 0})
				if err != nil {
					t.Errorf("snapshot %s: %v", id, err)
				}
			})
		}
		wg.Wait()
		for i := range 20 {
			id := fmt.Sprint(i)
			want(t, "changes of a new one", changes(t, s, id), "")
			inside(t, s, id, func(dir string) {
				must(t, os.WriteFile(dir+"/own"+id, nil, 0o644))
				want(t, id, tree(t, dir), fmt.Sprintf("a=%d own%d=", i%2, i))
				var st unix.Stat_t
				must(t, unix.Stat(dir, &st))
				n, _ := unix.Getxattr(dir, "user.of", nil)
				want(t, "root of "+id, fmt.Sprintf("%o %d %t", st.Mode&0o7777, st.Uid, n > 0),
					[]string{"711 7 false", "755 0 true"}[i%2])
			})
			must(t, s.Remove(t.Context(), id))
		}
	}
}

func second[T any](_ T, err error) error { return err }

// An ephemeral snapshot is like any other, also when it is mounted again.
func testEphemeral(t *testing.T, s snapshot.Snapshotter) {
	layer := Unpack(t, s, File{Name: "a", Content: "1"})
	must(t, s.Prepare(t.Context(), "c", []digest.Digest{layer}, snapshot.PrepareOptions{Ephemeral: true}))
	for i := range 3 {
		inside(t, s, "c", func(dir string) {
			f, err := os.Create(fmt.Sprintf("%s/f%d", dir, i))
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
		})
	}
	inside(t, s, "c", func(dir string) { want(t, "merged", tree(t, dir), "a=1 f0= f1= f2=") })
	want(t, "changes", changes(t, s, "c"), "A /f0, A /f1, A /f2")
	must(t, s.Remove(t.Context(), "c"))
}

// A limit either holds or is refused.
func testSizeLimit(t *testing.T, s snapshot.Snapshotter) {
	layer := Unpack(t, s, File{Name: "a", Content: "1"})
	err := s.Prepare(t.Context(), "c", []digest.Digest{layer}, snapshot.PrepareOptions{SizeLimit: 1 << 20})
	if errors.Is(err, errdefs.ErrNotImplemented) {
		if ids, _ := s.Snapshots(t.Context()); len(ids) != 0 {
			t.Errorf("left behind: %q", ids)
		}
		t.Skip(err)
	}
	must(t, err)
	inside(t, s, "c", func(dir string) {
		must(t, os.WriteFile(dir+"/fits", make([]byte, 1<<19), 0o644))
		var err error
		asContainer(func() { err = os.WriteFile(dir+"/big", make([]byte, 2<<20), 0o644) })
		if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("writing more than the limit gives %v", err)
		}
	})
	prepare(t, s, "unlimited", layer)
	inside(t, s, "unlimited", func(dir string) { must(t, os.WriteFile(dir+"/big", make([]byte, 2<<20), 0o644)) })
	must(t, s.Remove(t.Context(), "c"))
}

// asContainer runs f without CAP_SYS_RESOURCE, which containers do not have and
// which lifts every quota.
func asContainer(f func()) {
	_ = thread.Spend(func() error {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if unix.Capget(&hdr, &caps[0]) == nil {
			caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
			unix.Capset(&hdr, &caps[0])
		}
		f()
		return nil
	})
}

func testReopen(t *testing.T, open func(string) (snapshot.Snapshotter, error)) {
	dir := t.TempDir()
	s, err := open(dir)
	must(t, err)
	layer := Unpack(t, s, File{Name: "./", Mode: 0o711}, File{Name: "a", Content: "1"})
	prepare(t, s, "c", layer)
	inside(t, s, "c", func(dir string) { must(t, os.WriteFile(dir+"/b", []byte("2"), 0o644)) })
	s, err = open(dir)
	must(t, err)
	if !s.HasLayer(layer) {
		t.Error("the layer is gone")
	}
	want(t, "changes", changes(t, s, "c"), "A /b")
	inside(t, s, "c", func(dir string) { want(t, "merged", tree(t, dir), "a=1 b=2") })
	prepare(t, s, "d", layer)
	inside(t, s, "d", func(dir string) {
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o711 {
			t.Errorf("the root has mode %v, %v", fi.Mode(), err)
		}
	})
}

func testOddDirectory(t *testing.T, open func(string) (snapshot.Snapshotter, error)) {
	for _, name := range []string{`a:b`, `a,b`, `a\b`, "a b", strings.Repeat("long", 40) + "/" + strings.Repeat("long", 40)} {
		s, err := open(filepath.Join(t.TempDir(), name))
		must(t, err)
		prepare(t, s, "c", Unpack(t, s, File{Name: "a", Content: "1"}), Unpack(t, s, File{Name: "b", Content: "2"}))
		inside(t, s, "c", func(dir string) {
			must(t, os.WriteFile(dir+"/c", []byte("3"), 0o644))
			want(t, name, tree(t, dir), "a=1 b=2 c=3")
		})
		want(t, name, changes(t, s, "c"), "A /c")
	}
}

// Several pulls of images that share a layer.
func testSameLayerAtOnce(t *testing.T, s snapshot.Snapshotter) {
	diffID, data := Layer(t, File{Name: "a", Content: strings.Repeat("x", 1<<20)})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var r io.Reader = bytes.NewReader(data)
			if i%2 == 1 { // half of them fail, and must not spoil it for the others
				r = bytes.NewReader(data[:len(data)/2])
			}
			_, err := s.Unpack(context.Background(), diffID, r)
			if err != nil && i%2 == 0 {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	prepare(t, s, "c", diffID)
	inside(t, s, "c", func(dir string) {
		if fi, err := os.Stat(dir + "/a"); err != nil || fi.Size() != 1<<20 {
			t.Errorf("%v", err)
		}
	})
}

func testBadLayers(t *testing.T, s snapshot.Snapshotter) {
	diffID, data := Layer(t, File{Name: "a", Content: strings.Repeat("x", 10000)})
	evilID, evil := Layer(t, File{Name: "../../../evil", Content: "x"})
	for name, test := range map[string]struct {
		diffID digest.Digest
		data   []byte
	}{
		"other content":   {digest.FromString("other"), data},
		"truncated":       {diffID, data[:6000]},
		"more afterwards": {diffID, append(slices.Clone(data), make([]byte, 512)...)},
		"no archive":      {digest.FromString(strings.Repeat("no tar", 500)), []byte(strings.Repeat("no tar", 500))},
		"leads out":       {evilID, evil},
		"no digest":       {"sha256:1234", data},
	} {
		_, err := s.Unpack(t.Context(), test.diffID, bytes.NewReader(test.data))
		if err == nil || s.HasLayer(test.diffID) {
			t.Errorf("%s is accepted (%v)", name, err)
		}
		if name != "no archive" && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if infos, _ := s.Layers(t.Context()); len(infos) != 0 {
		t.Errorf("left: %v", infos)
	}
	Unpack(t, s, File{Name: "a", Content: strings.Repeat("x", 10000)}) // and it still works
}

// testFullDisk unpacks more than the disk holds.
func testFullDisk(t *testing.T, open func(string) (snapshot.Snapshotter, error)) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("something is still open: %v", err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	s, err := open(dir)
	if errors.Is(err, errdefs.ErrNotImplemented) {
		t.Skip(err)
	}
	must(t, err)
	before := count(t, dir)
	diffID, data := Layer(t, File{Name: "a/b", Content: "1"}, File{Name: "a/big", Content: strings.Repeat("x", 16<<20)})
	_, err = s.Unpack(t.Context(), diffID, bytes.NewReader(data))
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the error is %v", err)
	}
	if after := count(t, dir); after != before || s.HasLayer(diffID) {
		t.Errorf("%d files before, %d after", before, after)
	}
	Unpack(t, s, File{Name: "small", Content: "1"})
}

// count counts files and directories below dir.
func count(t testing.TB, dir string) int {
	t.Helper()
	n := 0
	must(t, filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error {
		n++
		return err
	}))
	return n
}

const killedEnv = "GANTRY_SNAPSHOTTEST_KILLED"

// testKilled kills a process in the middle of Unpack. The process is this test
// binary, told by the environment to run only this test.
func testKilled(t *testing.T, open func(string) (snapshot.Snapshotter, error)) {
	if dir := os.Getenv(killedEnv); dir != "" {
		unpackForever(t, open, dir)
	}
	dir := t.TempDir()
	_, err := open(dir)
	must(t, err)
	before := count(t, dir)
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	cmd.Env = append(os.Environ(), killedEnv+"="+dir)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil || !strings.HasPrefix(line, "half") {
		t.Fatalf("the process said %q, %v", line, err)
	}
	if count(t, dir) <= before {
		t.Fatal("it was not in the middle of anything")
	}
	s, err := open(dir)
	must(t, err)
	if after := count(t, dir); after != before {
		t.Errorf("%d files before, %d after", before, after)
	}
	if infos, _ := s.Layers(t.Context()); len(infos) != 0 {
		t.Errorf("there are layers: %v", infos)
	}
}

// unpackForever unpacks a layer that never ends.
func unpackForever(t *testing.T, open func(string) (snapshot.Snapshotter, error), dir string) {
	s, err := open(dir)
	must(t, err)
	diffID, data := Layer(t, File{Name: "a/b", Content: strings.Repeat("x", 4<<20)}, File{Name: "c", Content: strings.Repeat("x", 1<<20)})
	_, err = s.Unpack(t.Context(), diffID, &endless{data: data[:5<<20-600000], dir: dir})
	t.Fatal("Unpack ended", err)
}

// endless yields data, says so and then nothing more.
type endless struct {
	data []byte
	dir  string
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.data) == 0 {
		// What was read is written by another goroutine: wait for the file.
		for {
			found, _ := filepath.Glob(filepath.Join(e.dir, "*", "tmp", "*", "fs", "a", "b"))
			if len(found) > 0 {
				break
			}
		}
		fmt.Println("half")
		select {}
	}
	n := copy(p, e.data)
	e.data = e.data[n:]
	return n, nil
}
