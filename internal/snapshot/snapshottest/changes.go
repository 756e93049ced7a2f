package snapshottest

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/snapshot"
)

// changes lists the changes of a snapshot as "A /path, D /path".
func changes(t testing.TB, s snapshot.Snapshotter, id string) string {
	t.Helper()
	list, err := s.Changes(t.Context(), id)
	must(t, err)
	var parts []string
	for _, c := range list {
		if c.LayerOnly {
			continue
		}
		parts = append(parts, string("CAD"[c.Kind])+" "+c.Path)
	}
	return strings.Join(parts, ", ")
}

func changedImage(t testing.TB, s snapshot.Snapshotter) []digest.Digest {
	return []digest.Digest{
		Unpack(t, s,
			File{Name: "deep/er/file", Content: "1"}, File{Name: "deep/er/mode", Content: "1"},
			File{Name: "deleted", Content: "1"}, File{Name: "deldir/x", Content: "1"},
			File{Name: "recreated/a", Content: "1"}, File{Name: "recreated/b/c", Content: "1"},
			File{Name: "todir", Content: "1"}, File{Name: "tofile/x", Content: "1"},
			File{Name: "same", Content: "1"}, File{Name: "xattr", Content: "1"}, File{Name: "hidden", Content: "1"},
			File{Name: "moved", Content: "1"}, File{Name: "untouched/x", Content: "1"}),
		Unpack(t, s, File{Name: ".wh.hidden"}, File{Name: "upper", Content: "1"}),
	}
}

// change does to a snapshot what its name says.
func change(t testing.TB, dir string) {
	t.Helper()
	write := func(name string) { must(t, os.WriteFile(dir+name, []byte("changed"), 0o600)) }
	write("/deep/er/file")
	must(t, os.Chmod(dir+"/deep/er/mode", 0o600))
	must(t, os.Remove(dir+"/deleted"))
	must(t, os.RemoveAll(dir+"/deldir"))
	must(t, os.RemoveAll(dir+"/recreated"))
	must(t, os.MkdirAll(dir+"/recreated/b", 0o755))
	write("/recreated/new")
	must(t, os.Remove(dir+"/todir"))
	must(t, os.Mkdir(dir+"/todir", 0o755))
	write("/todir/y")
	must(t, os.RemoveAll(dir+"/tofile"))
	write("/tofile")
	f, err := os.OpenFile(dir+"/same", os.O_RDWR, 0) // copied up, not changed
	must(t, err)
	must(t, f.Close())
	must(t, unix.Setxattr(dir+"/xattr", "user.k", []byte("v"), 0))
	write("/hidden")
	must(t, os.Rename(dir+"/moved", dir+"/moved-to"))
	must(t, os.MkdirAll(dir+"/new/dir", 0o755))
	must(t, os.Symlink("x", dir+"/new/dir/link"))
	must(t, os.Remove(dir+"/upper"))
	write("/passing")
	must(t, os.Remove(dir+"/passing"))
}

func testChanges(t *testing.T, s snapshot.Snapshotter) {
	prepare(t, s, "c", changedImage(t, s)...)
	inside(t, s, "c", func(dir string) { change(t, dir) })
	want(t, "changes", changes(t, s, "c"), strings.Join([]string{
		"C /deep", "C /deep/er", "C /deep/er/file", "C /deep/er/mode", "D /deldir", "D /deleted",
		"A /hidden", "D /moved", "A /moved-to", "A /new", "A /new/dir", "A /new/dir/link",
		"C /recreated", "D /recreated/a", "C /recreated/b", "D /recreated/b/c", "A /recreated/new",
		"C /todir", "A /todir/y", "C /tofile", "D /upper", "C /xattr",
	}, ", "))
}

func testChangesOfNothing(t *testing.T, s snapshot.Snapshotter) {
	prepare(t, s, "c", changedImage(t, s)...)
	want(t, "untouched", changes(t, s, "c"), "")
	inside(t, s, "c", func(dir string) {
		must(t, os.WriteFile(dir+"/untouched/new", nil, 0o644))
		must(t, os.Remove(dir+"/untouched/new"))
		tree(t, dir)
	})
	want(t, "made and removed again", changes(t, s, "c"), "")
}

// The diff of a snapshot, unpacked as a layer over the same image, must show
// what the snapshot showed.
func testDiffRoundTrip(t *testing.T, s snapshot.Snapshotter) {
	image := changedImage(t, s)
	prepare(t, s, "c", image...)
	var before, after string
	inside(t, s, "c", func(dir string) {
		change(t, dir)
		before = tree(t, dir)
	})
	var diff bytes.Buffer
	must(t, s.Diff(t.Context(), "c", nil, &diff))
	diffID := digest.FromBytes(diff.Bytes())
	_, err := s.Unpack(t.Context(), diffID, &diff)
	must(t, err)
	prepare(t, s, "d", append(image, diffID)...)
	inside(t, s, "d", func(dir string) { after = tree(t, dir) })
	want(t, "after a commit", after, before)
	want(t, "changes since the commit", changes(t, s, "d"), "")
	diff.Reset()
	must(t, s.Diff(t.Context(), "c", func([]snapshot.Change) []snapshot.Change { return nil }, &diff))
	if diff.Len() != 1024 {
		t.Errorf("a diff of which nothing is kept has %d bytes, not the 1024 of an empty archive", diff.Len())
	}
}

// What is removed while its diff is written must not look like one that has
// nothing in it.
func testDiffOfRemoved(t *testing.T, s snapshot.Snapshotter) {
	prepare(t, s, "c", changedImage(t, s)...)
	inside(t, s, "c", func(dir string) { change(t, dir) })
	err := s.Diff(t.Context(), "c", func(all []snapshot.Change) []snapshot.Change {
		must(t, s.Remove(t.Context(), "c"))
		return all
	}, io.Discard)
	if !errdefs.IsNotFound(err) {
		t.Errorf("the diff of a snapshot that was removed meanwhile: %v", err)
	}
}

func testUsage(t *testing.T, s snapshot.Snapshotter) {
	prepare(t, s, "c", Unpack(t, s, File{Name: "big", Content: strings.Repeat("x", 100000)}))
	size, _, err := s.Usage(t.Context(), "c")
	if err != nil || size != 0 {
		t.Errorf("an untouched snapshot takes %d bytes, %v", size, err)
	}
	inside(t, s, "c", func(dir string) {
		must(t, os.WriteFile(dir+"/f", make([]byte, 1000), 0o644))
		must(t, os.Link(dir+"/f", dir+"/g"))
		must(t, os.Mkdir(dir+"/d", 0o755))
		must(t, os.WriteFile(dir+"/d/h", make([]byte, 234), 0o644))
	})
	size, inodes, err := s.Usage(t.Context(), "c")
	if err != nil || size != 1234 || inodes != 3 {
		t.Errorf("%d bytes in %d inodes, %v; want 1234 in 3", size, inodes, err)
	}
}
