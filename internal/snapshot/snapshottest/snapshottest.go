// Package snapshottest is the conformance suite of snapshot.Snapshotter: what a
// driver must do with layers, snapshots, failures and interruptions. It looks
// at snapshots through the mounts they describe, as a container would, and must
// not know how a driver stores them.
package snapshottest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/snapshot"
)

// File is an entry of a layer. A name ending in a slash is a directory; Link is
// the target of a hard link, Symlink of a symbolic one, Device a character
// device as {major, minor}.
type File struct {
	Name, Content, Link, Symlink string
	Device                       *[2]int64
	Mode                         int64
	UID, GID                     int
	Xattrs                       map[string]string
}

var fileTime = time.Unix(1600000000, 123456789)

// Layer builds the archive of a layer and its diff ID.
func Layer(t testing.TB, files ...File) (digest.Digest, []byte) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		hdr := &tar.Header{
			Name: f.Name, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Size: int64(len(f.Content)),
			Typeflag: tar.TypeReg, ModTime: fileTime, Format: tar.FormatPAX, PAXRecords: map[string]string{},
		}
		for name, value := range f.Xattrs {
			hdr.PAXRecords["SCHILY.xattr."+name] = value
		}
		switch {
		case strings.HasSuffix(f.Name, "/"):
			hdr.Typeflag = tar.TypeDir
		case f.Link != "":
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, f.Link
		case f.Symlink != "":
			hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, f.Symlink
		case f.Device != nil:
			hdr.Typeflag, hdr.Devmajor, hdr.Devminor = tar.TypeChar, f.Device[0], f.Device[1]
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o644
			if hdr.Typeflag == tar.TypeDir {
				hdr.Mode = 0o755
			}
		}
		must(t, w.WriteHeader(hdr))
		_, err := w.Write([]byte(f.Content))
		must(t, err)
	}
	must(t, w.Close())
	return digest.FromBytes(b.Bytes()), b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Unpack builds a layer and unpacks it.
func Unpack(t testing.TB, s snapshot.Snapshotter, files ...File) digest.Digest {
	t.Helper()
	diffID, data := Layer(t, files...)
	_, err := s.Unpack(t.Context(), diffID, bytes.NewReader(data))
	must(t, err)
	return diffID
}

// Run checks the driver that open opens. It is called again with the same
// directory to look at it as another process would.
func Run(t *testing.T, open func(dir string) (snapshot.Snapshotter, error)) {
	if os.Geteuid() != 0 {
		t.Skip("snapshots need root")
	}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s snapshot.Snapshotter)
	}{
		{"Layers", testLayers},
		{"Whiteouts", testWhiteouts},
		{"Attributes", testAttributes},
		{"Root", testRoot},
		{"ManyLayers", testManyLayers},
		{"NoLayers", testNoLayers},
		{"View", testView},
		{"Lifecycle", testLifecycle},
		{"LayerDirs", testLayerDirs},
		{"Changes", testChanges},
		{"ChangesOfNothing", testChangesOfNothing},
		{"Metadata", testMetadata},
		{"WhiteoutNames", testWhiteoutNames},
		{"ChangesMeanwhile", testChangesMeanwhile},
		{"DiffRoundTrip", testDiffRoundTrip},
		{"DiffOfRemoved", testDiffOfRemoved},
		{"Compare", testCompare},
		{"CompareXattrs", testCompareXattrs},
		{"Usage", testUsage},
		{"Ephemeral", testEphemeral},
		{"SizeLimit", testSizeLimit},
		{"SameLayerAtOnce", testSameLayerAtOnce},
		{"SnapshotsAtOnce", testSnapshotsAtOnce},
		{"BadLayers", testBadLayers},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := closing(t, open)(t.TempDir())
			must(t, err)
			test.run(t, s)
		})
	}
	t.Run("Reopen", func(t *testing.T) { testReopen(t, closing(t, open)) })
	t.Run("OddDirectory", func(t *testing.T) { testOddDirectory(t, closing(t, open)) })
	t.Run("FullDisk", func(t *testing.T) { testFullDisk(t, closing(t, open)) })
	t.Run("Killed", func(t *testing.T) { testKilled(t, closing(t, open)) })
}

// closing is open with what it opened closed at the end.
func closing(t *testing.T, open func(dir string) (snapshot.Snapshotter, error)) func(dir string) (snapshot.Snapshotter, error) {
	return func(dir string) (snapshot.Snapshotter, error) {
		s, err := open(dir)
		if err == nil {
			t.Cleanup(func() { must(t, s.Close()) })
		}
		return s, err
	}
}

// look mounts, calls f with a directory that shows the tree, and unmounts.
func look(t testing.TB, mounts []mount.Mount, f func(dir string)) {
	t.Helper()
	root, err := mount.Detached(mounts)
	must(t, err)
	defer root.Close()
	f(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
}

// inside shows a snapshot for reading and writing.
func inside(t testing.TB, s snapshot.Snapshotter, id string, f func(dir string)) {
	t.Helper()
	mounts, err := s.Mounts(id)
	must(t, err)
	look(t, mounts, f)
}

// tree describes what is below dir: "dir/", "file=content", "link -> target".
func tree(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	must(t, filepath.WalkDir(dir+"/", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir+"/" {
			return err
		}
		line := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		switch {
		case d.IsDir():
			line += "/"
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += "=" + string(data)
		default:
			line += " " + d.Type().String()
		}
		lines = append(lines, line)
		return nil
	}))
	return strings.Join(lines, " ")
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\ngot  %s\nwant %s", what, got, want)
	}
}

func prepare(t testing.TB, s snapshot.Snapshotter, id string, layers ...digest.Digest) {
	t.Helper()
	must(t, s.Prepare(t.Context(), id, layers, snapshot.PrepareOptions{}))
}

func testLayers(t *testing.T, s snapshot.Snapshotter) {
	ctx := context.Background()
	diffID, data := Layer(t, File{Name: "a", Content: "12345"}, File{Name: "b", Content: "678"})
	if s.HasLayer(diffID) {
		t.Error("a layer is there before it was unpacked")
	}
	for range 2 { // again is fine
		size, err := s.Unpack(ctx, diffID, bytes.NewReader(data))
		if err != nil || size != 8 {
			t.Errorf("size %d, %v", size, err)
		}
	}
	infos, err := s.Layers(ctx)
	if err != nil || len(infos) != 1 || infos[0] != (snapshot.LayerInfo{DiffID: diffID, Size: 8}) {
		t.Errorf("layers %v, %v", infos, err)
	}
	must(t, s.RemoveLayer(ctx, diffID))
	if s.HasLayer(diffID) {
		t.Error("a removed layer is there")
	}
	for _, err := range []error{
		s.RemoveLayer(ctx, diffID),
		s.Prepare(ctx, "x", []digest.Digest{diffID}, snapshot.PrepareOptions{}),
	} {
		if !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("of a removed layer: %v", err)
		}
	}
	_, err = s.Unpack(ctx, diffID, bytes.NewReader(data))
	must(t, err)
}

func testWhiteouts(t *testing.T, s snapshot.Snapshotter) {
	lower := Unpack(t, s,
		File{Name: "gone", Content: "1"}, File{Name: "gonedir/x", Content: "1"}, File{Name: "kept", Content: "1"},
		File{Name: "opaque/old", Content: "1"}, File{Name: "todir", Content: "1"}, File{Name: "tofile/x", Content: "1"},
		File{Name: "again/old", Content: "1"}, File{Name: "changed", Content: "1"})
	upper := Unpack(t, s,
		File{Name: ".wh.gone"}, File{Name: ".wh.gonedir"}, File{Name: ".wh.never"},
		File{Name: "opaque/"}, File{Name: "opaque/.wh..wh..opq"}, File{Name: "opaque/new", Content: "2"},
		File{Name: "todir/"}, File{Name: "todir/y", Content: "2"}, File{Name: "tofile", Content: "2"},
		File{Name: ".wh.again"}, File{Name: "again/"}, File{Name: "again/new", Content: "2"},
		File{Name: "changed", Content: "2"})
	prepare(t, s, "c", lower, upper)
	inside(t, s, "c", func(dir string) {
		want(t, "merged", tree(t, dir), "again/ again/new=2 changed=2 kept=1 opaque/ opaque/new=2 todir/ todir/y=2 tofile=2")
	})
	third := Unpack(t, s, File{Name: "gone", Content: "3"}, File{Name: "gonedir/"}, File{Name: ".wh.todir"})
	prepare(t, s, "d", lower, upper, third)
	inside(t, s, "d", func(dir string) {
		want(t, "merged", tree(t, dir), "again/ again/new=2 changed=2 gone=3 gonedir/ kept=1 opaque/ opaque/new=2 tofile=2")
	})
}

func testAttributes(t *testing.T, s snapshot.Snapshotter) {
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	id := Unpack(t, s,
		File{Name: "d/", Mode: 0o3770, UID: 1, GID: 2, Xattrs: map[string]string{"trusted.k": "v"}},
		File{Name: "d/f", Content: "1", Mode: 0o4755, UID: 3, GID: 4, Xattrs: map[string]string{"security.capability": capability}},
		File{Name: "e/hard", Link: "d/f"},
		File{Name: "s", Symlink: "d/f", UID: 5, GID: 6},
		File{Name: "null", Device: &[2]int64{1, 3}, Mode: 0o622, UID: 7},
	)
	prepare(t, s, "c", id)
	inside(t, s, "c", func(dir string) {
		stat := func(name string) (st unix.Stat_t) {
			must(t, unix.Lstat(filepath.Join(dir, name), &st))
			return st
		}
		for name, expected := range map[string][3]uint32{
			"d": {unix.S_IFDIR | 0o3770, 1, 2}, "d/f": {unix.S_IFREG | 0o4755, 3, 4}, "e/hard": {unix.S_IFREG | 0o4755, 3, 4},
			"s": {unix.S_IFLNK | 0o777, 5, 6}, "null": {unix.S_IFCHR | 0o622, 7, 0},
		} {
			st := stat(name)
			if got := [3]uint32{st.Mode, st.Uid, st.Gid}; got != expected {
				t.Errorf("%s has %o, want %o", name, got, expected)
			}
			if st.Mtim.Nano() != fileTime.UnixNano() {
				t.Errorf("%s was changed at %d, want %d", name, st.Mtim.Nano(), fileTime.UnixNano())
			}
		}
		if a, b := stat("d/f"), stat("e/hard"); a.Ino != b.Ino || a.Nlink != 2 {
			t.Errorf("the hard link is another file: %d, %d, %d links", a.Ino, b.Ino, a.Nlink)
		}
		if st := stat("null"); unix.Major(uint64(st.Rdev)) != 1 || unix.Minor(uint64(st.Rdev)) != 3 {
			t.Errorf("the device has number %x", st.Rdev)
		}
		for _, x := range [][3]string{{"d", "trusted.k", "v"}, {"d/f", "security.capability", capability}} {
			buf := make([]byte, 100)
			n, err := unix.Lgetxattr(filepath.Join(dir, x[0]), x[1], buf)
			if err != nil || string(buf[:n]) != x[2] {
				t.Errorf("%s of %s is %q, %v", x[1], x[0], buf[:max(n, 0)], err)
			}
		}
	})
}

// The root directory looks as the topmost layer that mentions it says.
func testRoot(t *testing.T, s snapshot.Snapshotter) {
	base := Unpack(t, s, File{Name: "./", Mode: 0o1751, UID: 10, GID: 20}, File{Name: "a", Content: "1"})
	silent := Unpack(t, s, File{Name: "b", Content: "1"})
	other := Unpack(t, s, File{Name: "./", Mode: 0o700, UID: 11, GID: 21}, File{Name: "c", Content: "1"})
	for id, test := range map[string]struct {
		layers []digest.Digest
		want   [3]uint32
	}{
		"said":   {[]digest.Digest{base, silent}, [3]uint32{0o1751, 10, 20}},
		"last":   {[]digest.Digest{base, other, silent}, [3]uint32{0o700, 11, 21}},
		"unsaid": {[]digest.Digest{silent}, [3]uint32{0o755, 0, 0}},
		"none":   {nil, [3]uint32{0o755, 0, 0}},
	} {
		prepare(t, s, id, test.layers...)
		inside(t, s, id, func(dir string) {
			var st unix.Stat_t
			must(t, unix.Stat(dir, &st))
			if got := [3]uint32{st.Mode & 0o7777, st.Uid, st.Gid}; got != test.want {
				t.Errorf("%s: the root has %o, want %o", id, got, test.want)
			}
		})
	}
}

// Docker's limit is 127 layers.
func testManyLayers(t *testing.T, s snapshot.Snapshotter) {
	layers := make([]digest.Digest, 140)
	var wg sync.WaitGroup
	for i := range layers { // at once, as a pull does: they share their syncs
		diffID, data := Layer(t, File{Name: fmt.Sprintf("f%03d", i), Content: "x"}, File{Name: "last", Content: fmt.Sprint(i)})
		layers[i] = diffID
		wg.Go(func() {
			if _, err := s.Unpack(context.Background(), diffID, bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	prepare(t, s, "c", layers...)
	inside(t, s, "c", func(dir string) {
		entries, err := os.ReadDir(dir + "/")
		must(t, err)
		if len(entries) != 141 {
			t.Errorf("%d entries", len(entries))
		}
		data, err := os.ReadFile(dir + "/last")
		must(t, err)
		want(t, "the topmost layer", string(data), "139")
	})
	mounts, err := s.Mounts("c")
	must(t, err)
	if _, err := mounts[0].Legacy(); err != nil {
		t.Errorf("it does not fit mount(2): %v", err)
	}
}

func testNoLayers(t *testing.T, s snapshot.Snapshotter) {
	prepare(t, s, "c")
	inside(t, s, "c", func(dir string) {
		want(t, "empty", tree(t, dir), "")
		must(t, os.WriteFile(dir+"/new", []byte("1"), 0o644))
	})
	want(t, "changes", changes(t, s, "c"), "A /new")
}

func testView(t *testing.T, s snapshot.Snapshotter) {
	a := Unpack(t, s, File{Name: "a", Content: "1"}, File{Name: "b", Content: "1"})
	b := Unpack(t, s, File{Name: ".wh.a"}, File{Name: "c", Content: "2"})
	for _, test := range []struct {
		layers []digest.Digest
		want   string
	}{{nil, ""}, {[]digest.Digest{a}, "a=1 b=1"}, {[]digest.Digest{b}, "c=2"}, {[]digest.Digest{a, b}, "b=1 c=2"}} {
		mounts, err := s.View(t.Context(), test.layers)
		must(t, err)
		look(t, mounts, func(dir string) {
			want(t, "view", tree(t, dir), test.want)
			if err := os.WriteFile(dir+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing gives %v", err)
			}
		})
	}
}
