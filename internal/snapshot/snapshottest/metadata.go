package snapshottest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/snapshot"
)

// details is tree with everything else a layer keeps: modes, owners, times,
// attributes, and which names are of one file. The time of the root is left
// out.
func details(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	dir += "/" // it is a link
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		if rel != "." {
			line += " " + time.Unix(st.Mtim.Unix()).UTC().Format(time.RFC3339Nano)
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += "=" + string(data)
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			line += " as " + first[st.Ino]
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			lines = append(lines, line)
			return nil
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		attrs, err := layer.Xattrs(int(f.Fd()))
		for _, name := range slices.Sorted(maps.Keys(attrs)) {
			line += fmt.Sprintf(" %s=%q", name, attrs[name])
		}
		lines = append(lines, line)
		return err
	}))
	return strings.Join(lines, "\n")
}

// metadataCases are changes that are easily lost between a snapshot and its
// layer.
var metadataCases = []struct {
	name   string
	do     func(t testing.TB, dir string)
	change string // as a person sees it
}{
	{"mode of a directory", func(t testing.TB, dir string) { must(t, os.Chmod(dir+"/d", 0o700)) }, "C /d"},
	{"special bits of a directory", func(t testing.TB, dir string) { must(t, unix.Chmod(dir+"/d", 0o3755)) }, "C /d"},
	{"owner of a directory", func(t testing.TB, dir string) { must(t, os.Chown(dir+"/d/in", 5, 6)) }, "C /d, C /d/in"},
	{"attribute of a directory", func(t testing.TB, dir string) { must(t, unix.Setxattr(dir+"/d", "user.k", []byte("v"), 0)) }, "C /d"},
	{"attribute gone from a directory", func(t testing.TB, dir string) { must(t, unix.Removexattr(dir+"/attr", "user.old")) }, "C /attr"},
	{"time of a directory", func(t testing.TB, dir string) { must(t, os.Chtimes(dir+"/d/in", fileTime, fileTime.Add(-time.Hour))) }, ""},
	{"setuid", func(t testing.TB, dir string) { must(t, unix.Chmod(dir+"/d/f", 0o4755)) }, "C /d, C /d/f"},
	{"capability", func(t testing.TB, dir string) {
		must(t, unix.Setxattr(dir+"/d/f", "security.capability", capability, 0))
	}, "C /d, C /d/f"},
	{"capability gone", func(t testing.TB, dir string) { must(t, unix.Removexattr(dir+"/attr/cap", "security.capability")) }, "C /attr, C /attr/cap"},
	{"time of a file", func(t testing.TB, dir string) {
		must(t, os.Chtimes(dir+"/d/f", fileTime, fileTime.Add(time.Nanosecond)))
	}, "C /d, C /d/f"},
	{"content with the time set back", func(t testing.TB, dir string) {
		must(t, os.WriteFile(dir+"/d/f", []byte("2"), 0o644))
		must(t, os.Chtimes(dir+"/d/f", fileTime, fileTime))
	}, "C /d, C /d/f"},
	{"the root", func(t testing.TB, dir string) {
		must(t, os.Chown(dir, 7, 8))
		must(t, unix.Chmod(dir, 0o1777))
		must(t, unix.Setxattr(dir, "user.root", []byte("v"), 0))
	}, "C /"},
	{"another name of an old file", func(t testing.TB, dir string) { must(t, os.Link(dir+"/d/f", dir+"/attr/link")) }, "C /attr, A /attr/link"},
	{"a socket in the place of a file", func(t testing.TB, dir string) {
		must(t, os.Remove(dir+"/d/f"))
		must(t, unix.Mknod(dir+"/d/f", unix.S_IFSOCK|0o755, 0))
	}, "C /d, C /d/f"},
	{"a fifo in the place of a file", func(t testing.TB, dir string) {
		must(t, os.Remove(dir+"/d/f"))
		must(t, unix.Mkfifo(dir+"/d/f", 0o600))
	}, "C /d, C /d/f"},
	{"a directory, a file, a directory", func(t testing.TB, dir string) {
		must(t, os.RemoveAll(dir+"/d"))
		must(t, os.WriteFile(dir+"/d", nil, 0o644))
		must(t, os.Remove(dir+"/d"))
		must(t, os.Mkdir(dir+"/d", 0o711))
	}, "C /d, D /d/f, D /d/in"},
}

var capability = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// Every change of a snapshot is in its diff, and nothing that is not one.
func testMetadata(t *testing.T, s snapshot.Snapshotter) {
	image := []digest.Digest{
		Unpack(t, s, File{Name: "./", Mode: 0o750}, File{Name: "d/"}, File{Name: "d/in/"}, File{Name: "d/f", Content: "1"},
			File{Name: "attr/", Xattrs: map[string]string{"user.old": "v"}},
			File{Name: "attr/cap", Content: "1", Xattrs: map[string]string{"security.capability": string(capability)}}),
		Unpack(t, s, File{Name: "last/"}, File{Name: "last/x"}), // which says nothing of the root
	}
	for i, c := range metadataCases {
		id := fmt.Sprint("c", i)
		prepare(t, s, id, image...)
		want(t, c.name+": before", changes(t, s, id), "")
		var before, after string
		inside(t, s, id, func(dir string) {
			c.do(t, dir)
			before = details(t, dir)
		})
		want(t, c.name, changes(t, s, id), c.change)
		var diff bytes.Buffer
		must(t, s.Diff(t.Context(), id, nil, &diff))
		diffID := digest.FromBytes(diff.Bytes())
		_, err := s.Unpack(t.Context(), diffID, &diff)
		must(t, err)
		whole := append(slices.Clone(image), diffID)
		prepare(t, s, id+"-again", whole...)
		inside(t, s, id+"-again", func(dir string) { after = details(t, dir) })
		if strings.Contains(c.name, "socket") { // no archive holds one
			before = withoutLine(before, "d/f ")
		}
		want(t, c.name+": after a commit", after, before)
		if list, err := s.Changes(t.Context(), id+"-again"); err != nil || len(list) != 0 {
			t.Errorf("%s: changes since the commit: %v, %v", c.name, list, err)
		}
		differences, err := s.Compare(t.Context(), image, whole)
		if seen := c.change != "" && !strings.HasPrefix(c.name, "time"); err != nil || len(differences) > 0 != seen {
			t.Errorf("%s: of the two images differs %v, %v", c.name, differences, err)
		}
	}
}

func withoutLine(text, prefix string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) }), "\n")
}

// A file whose name reads as a deletion must not delete another one.
func testWhiteoutNames(t *testing.T, s snapshot.Snapshotter) {
	image := Unpack(t, s, File{Name: "d/"}, File{Name: "d/f", Content: "1"})
	prepare(t, s, "c", image)
	inside(t, s, "c", func(dir string) {
		must(t, os.WriteFile(dir+"/d/.wh.f", nil, 0o644))
		must(t, os.WriteFile(dir+"/d/.wh..wh..opq", nil, 0o644))
		must(t, os.MkdirAll(dir+"/.wh.d/in", 0o755))
	})
	var diff bytes.Buffer
	must(t, s.Diff(t.Context(), "c", nil, &diff))
	diffID := digest.FromBytes(diff.Bytes())
	_, err := s.Unpack(t.Context(), diffID, &diff)
	must(t, err)
	prepare(t, s, "again", image, diffID)
	inside(t, s, "again", func(dir string) { want(t, "after a commit", tree(t, dir), "d/ d/f=1") })
}

// What a container does meanwhile makes neither a list of changes nor a diff
// fail: a path is another thing between two looks at it, or gone.
func testChangesMeanwhile(t *testing.T, s snapshot.Snapshotter) {
	image := Unpack(t, s, File{Name: "d/"}, File{Name: "d/x/"}, File{Name: "d/x/y/"}, File{Name: "d/x/y/z", Content: "1"})
	prepare(t, s, "c", image)
	inside(t, s, "c", func(dir string) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				os.RemoveAll(dir + "/d/x")
				switch i % 4 {
				case 0:
					os.WriteFile(dir+"/d/x", []byte("2"), 0o644)
				case 1:
					os.Symlink("/d", dir+"/d/x")
				case 2:
					unix.Mkfifo(dir+"/d/x", 0o600)
				default:
					os.MkdirAll(dir+"/d/x/y", 0o755)
					os.WriteFile(dir+"/d/x/y/z", []byte("2"), 0o644)
				}
			}
		}()
		defer func() { close(stop); <-stopped }()
		for range 300 {
			if _, err := s.Changes(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
			if err := s.Diff(t.Context(), "c", nil, io.Discard); err != nil {
				t.Fatal(err)
			}
		}
	})
}
