package snapshottest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/snapshot"
)

// differences lists what Compare finds as "A /path@layer", "D /path@layer" and
// "C /path@old>new what".
func differences(t testing.TB, s snapshot.Snapshotter, from, to []digest.Digest) string {
	t.Helper()
	list, err := s.Compare(t.Context(), from, to)
	must(t, err)
	var parts []string
	for _, d := range list {
		switch {
		case d.Old == nil:
			parts = append(parts, fmt.Sprintf("A %s@%d", d.Path, d.New.Layer))
		case d.New == nil:
			parts = append(parts, fmt.Sprintf("D %s@%d", d.Path, d.Old.Layer))
		default:
			what := ""
			for i, letter := range "cmotx" {
				if d.What&(1<<i) != 0 {
					what += string(letter)
				}
			}
			parts = append(parts, fmt.Sprintf("C %s@%d>%d %s", d.Path, d.Old.Layer, d.New.Layer, what))
		}
	}
	return strings.Join(parts, ", ")
}

// Two versions of an image differ in what a container would see, wherever the
// layers have it from.
func testCompare(t *testing.T, s snapshot.Snapshotter) {
	base := Unpack(t, s,
		File{Name: "etc/"}, File{Name: "etc/a", Content: "1"}, File{Name: "etc/b", Content: "2"}, File{Name: "etc/sub/"}, File{Name: "etc/sub/c", Content: "3"},
		File{Name: "lib/"}, File{Name: "lib/x", Content: "x"}, File{Name: "lib/y", Content: "y"},
		File{Name: "turns/"}, File{Name: "turns/in", Content: "in"}, File{Name: "link", Symlink: "etc"})
	one := Unpack(t, s, File{Name: "etc/a", Content: "one"}, File{Name: "only-one", Content: "1"}, File{Name: "same", Content: "same"},
		File{Name: "etc/.wh.sub"}, File{Name: "dev", Device: &[2]int64{1, 3}})
	two := Unpack(t, s, File{Name: "etc/a", Content: "two!"}, File{Name: "same", Content: "same"}, File{Name: "etc/b", Content: "2", Mode: 0o600},
		File{Name: "turns", Content: "a file now"}, File{Name: "lib/.wh..wh..opq"}, File{Name: "lib/z", Content: "z"},
		File{Name: "dev", Device: &[2]int64{1, 5}}, File{Name: "new/"}, File{Name: "new/in", Content: "n"})
	three := Unpack(t, s, File{Name: "same", Content: "SAME"}, File{Name: "link", Symlink: "lib"}, File{Name: "etc/b", Content: "2", UID: 7},
		File{Name: ".wh.only-one"}, File{Name: "dev", Content: "a file"})

	stack := func(layers ...digest.Digest) []digest.Digest { return layers }
	for name, tt := range map[string]struct {
		from, to []digest.Digest
		want     string
	}{
		"the same":     {stack(base, one), stack(base, one), ""},
		"more on top":  {stack(base), stack(base, two), "A /dev@1, C /etc/a@0>1 c, C /etc/b@0>1 m, D /lib/x@0, D /lib/y@0, A /lib/z@1, A /new@1, A /new/in@1, A /same@1, C /turns@0>1 t, D /turns/in@0"},
		"whole images": {stack(base, one), stack(base, two), "C /dev@1>1 c, C /etc/a@1>1 c, C /etc/b@0>1 m, A /etc/sub@0, A /etc/sub/c@0, D /lib/x@0, D /lib/y@0, A /lib/z@1, A /new@1, A /new/in@1, D /only-one@1, C /turns@0>1 t, D /turns/in@0"},
		"and back":     {stack(base, two), stack(base, one), "C /dev@1>1 c, C /etc/a@1>1 c, C /etc/b@1>0 m, D /etc/sub@0, D /etc/sub/c@0, A /lib/x@0, A /lib/y@0, D /lib/z@1, D /new@1, D /new/in@1, A /only-one@1, C /turns@1>0 t, A /turns/in@0"},
		"a third":      {stack(base, one), stack(base, one, three), "C /dev@1>2 t, C /etc/b@0>2 o, C /link@0>2 c, D /only-one@1, C /same@1>2 c"},
		"from nothing": {nil, stack(three), "A /dev@0, A /etc@0, A /etc/b@0, A /link@0, A /same@0"},
		"to nothing":   {stack(three), nil, "D /dev@0, D /etc@0, D /etc/b@0, D /link@0, D /same@0"},
	} {
		want(t, name, differences(t, s, tt.from, tt.to), tt.want)
	}
	if _, err := s.Compare(t.Context(), stack(base), []digest.Digest{digest.FromString("none")}); !errdefs.IsNotFound(err) {
		t.Errorf("compared with a layer that is not there: %v", err)
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err != nil || len(fds) > 60 {
		t.Errorf("%d files are open, %v", len(fds), err)
	}
}

// Extended attributes are a difference where the file system has them.
func testCompareXattrs(t *testing.T, s snapshot.Snapshotter) {
	probe := t.TempDir()
	if err := unix.Setxattr(probe, "user.probe", []byte("x"), 0); err != nil {
		t.Skip("the file system has no extended attributes:", err)
	}
	plain := Unpack(t, s, File{Name: "f", Content: "x"}, File{Name: "g", Content: "x"})
	marked := Unpack(t, s, File{Name: "f", Content: "x", Xattrs: map[string]string{"user.note": "n"}}, File{Name: "g", Content: "x"})
	want(t, "attributes", differences(t, s, []digest.Digest{plain}, []digest.Digest{marked}), "C /f@0>0 x")
}
