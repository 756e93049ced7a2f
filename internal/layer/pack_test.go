package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func pack(t testing.TB, dir string, opts PackOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Pack(context.Background(), openDirectory(t, dir), &b, opts); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// names lists an archive as "name", "name -> target" or "name == linked".
func names(t testing.TB, data []byte) string {
	t.Helper()
	var lines []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		hdr, err := r.Next()
		if err == io.EOF {
			return strings.Join(lines, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		line := hdr.Name
		switch hdr.Typeflag {
		case tar.TypeSymlink:
			line += " -> " + hdr.Linkname
		case tar.TypeLink:
			line += " == " + hdr.Linkname
		}
		lines = append(lines, line)
	}
}

func everything(t testing.TB) []byte {
	return archive(t,
		e{name: "./", mode: 0o1755, uid: 1, gid: 2},
		e{name: "d/", mode: 0o2775, uid: 3, gid: 4, xattrs: map[string]string{"user.k": "v\x00w"}},
		e{name: "d/f", content: "content", mode: 0o4711, uid: 5, gid: 6, xattrs: map[string]string{"user.k": "v"}},
		e{name: "d/hard", typ: link, content: "d/f"},
		e{name: "a-link", typ: sym, content: "d/f", uid: 7, gid: 8},
		e{name: "null", typ: char, major: 1, minor: 3, mode: 0o666},
		e{name: "fifo", typ: tar.TypeFifo, mode: 0o600},
		e{name: strings.Repeat("long", 60), content: "1"},
		e{name: "ünï\ncode", content: "2"},
		e{name: "o/"}, e{name: "o/.wh..wh..opq"}, e{name: "o/.wh.gone"},
	)
}

// What is packed and unpacked again must pack to the same bytes, whiteouts
// included.
func TestPackRoundTrip(t *testing.T) {
	needRoot(t)
	opts := UnpackOptions{Whiteouts: Overlay}
	dir, err := unpackTo(t, everything(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	first := pack(t, dir, PackOptions{Whiteouts: Overlay, Root: true})
	again, err := unpackTo(t, first, opts)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, again), list(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !bytes.Equal(first, pack(t, again, PackOptions{Whiteouts: Overlay, Root: true})) {
		t.Error("packing the copy gives other bytes")
	}
	if got := xattr(filepath.Join(again, "d"), "user.k"); got != "v\x00w" {
		t.Errorf("the attribute is %q", got)
	}
	for _, want := range []string{"o/.wh..wh..opq", "o/.wh.gone", "d/hard == d/f"} {
		if !strings.Contains(names(t, first), want) {
			t.Errorf("no %s in\n%s", want, names(t, first))
		}
	}
}

func TestPackOptions(t *testing.T) {
	needRoot(t)
	dir, err := unpackTo(t, archive(t, e{name: "a/b/c", content: "1", uid: 5, gid: 6}, e{name: "s/x", content: "2"}), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data := pack(t, dir, PackOptions{
		Skip:     func(p string) bool { return p == "s" },
		MapOwner: func(o Owner) (Owner, error) { return Owner{o.UID + 1, o.GID + 1}, nil },
	})
	if got := names(t, data); got != "a/\na/b/\na/b/c" {
		t.Errorf("got\n%s", got)
	}
	back, err := unpackTo(t, data, UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(back, "a/b/c"), &st); err != nil || st.Uid != 6 || st.Gid != 7 {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
}

func needGNUTar(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("tar", "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU tar")) {
		t.Skip("no GNU tar")
	}
}

// GNU tar must read what we write, and we what it writes.
func TestPackForeignTar(t *testing.T) {
	needRoot(t)
	needGNUTar(t)
	dir, err := unpackTo(t, everything(t), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	theirs := t.TempDir()
	cmd := exec.Command("tar", "-C", theirs, "--xattrs", "--xattrs-include=*", "-xpf", "-")
	cmd.Stdin = bytes.NewReader(pack(t, dir, PackOptions{Root: true}))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := list(t, theirs), list(t, dir); got != want {
		t.Errorf("tar made\n%s\nof\n%s", got, want)
	}
	for _, format := range []string{"gnu", "posix", "oldgnu", "pax"} {
		out, err := exec.Command("tar", "-C", dir, "--format="+format, "-cf", "-", ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		back, err := unpackTo(t, out, UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := list(t, back), list(t, dir); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
	}
}

// A sparse file must not become as large on disk as it claims to be.
func TestUnpackSparse(t *testing.T) {
	needGNUTar(t)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	for _, at := range []int64{5000, 10 << 20, size - 3} {
		if _, err := f.WriteAt([]byte("end"), at); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	want, err := os.ReadFile(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix"} {
		out, err := exec.Command("tar", "-C", dir, "-S", "--format="+format, "-cf", "-", "sparse").Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > 1<<20 {
			t.Skip("tar found no holes on this file system")
		}
		back, err := unpackTo(t, out, UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(back, "sparse"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the content changed (%v)", format, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(back, "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: it takes %d bytes (%v)", format, st.Blocks*512, err)
		}
	}
}

func TestDecompress(t *testing.T) {
	plain := archive(t, e{name: "a", content: strings.Repeat("x", 100000)})
	for kind, tool := range map[Compression][]string{
		None: {"cat"}, Gzip: {"gzip", "-c"}, Zstd: {"zstd", "-qc"}, Xz: {"xz", "-c"}, Bzip2: {"bzip2", "-c"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			packed := packed(t, string(plain), tool...)
			r, got, err := Decompress(bytes.NewReader(packed))
			if err != nil || got != kind {
				t.Fatalf("%s, %v", got, err)
			}
			defer r.Close()
			data, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(data, plain) {
				t.Errorf("other content (%v)", err)
			}
			if kind == None {
				return
			}
			r, _, err = Decompress(bytes.NewReader(packed[:len(packed)-5]))
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			if err == nil {
				t.Error("a truncated stream is accepted")
			}
		})
	}
	if r, kind, err := Decompress(strings.NewReader("")); err != nil || kind != None {
		t.Errorf("nothing: %v, %v, %v", r, kind, err)
	}
}

// container makes a tree to copy from and to.
func container(t *testing.T) *os.File {
	t.Helper()
	dir, err := unpackTo(t, archive(t,
		e{name: "etc/passwd", content: "root"}, e{name: "etc/sub/x", content: "1"},
		e{name: "abs", typ: sym, content: "/etc"}, e{name: "out", typ: sym, content: "../../../../etc"},
		e{name: "file", typ: sym, content: "etc/passwd"}, e{name: "chain", typ: sym, content: "abs/../file"},
		e{name: "dangling", typ: sym, content: "/nowhere/x"},
		e{name: "loop", typ: sym, content: "loop"},
	), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return openDirectory(t, dir)
}

func TestStatPath(t *testing.T) {
	root := container(t)
	for p, want := range map[string]string{
		"/etc/passwd": "passwd - ", "etc/passwd": "passwd - ", "/abs/passwd": "passwd - ", "/out/passwd": "passwd - ",
		"/etc": "etc d ", "/etc/": "etc d ", "/etc/.": ". d ", "/": "/ d ", "": "/ d ", ".": ". d ",
		"/abs": "abs L /etc", "/abs/": "abs d ", "/out": "out L /etc", "/file": "file L /etc/passwd",
		"/chain": "chain L /etc/passwd", "/dangling": "dangling L /nowhere/x", "/../../etc": "etc d ",
	} {
		st, err := StatPath(root, p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if got := fmt.Sprintf("%s %c %s", st.Name, st.Mode.String()[0], st.LinkTarget); got != want {
			t.Errorf("%s: got %q, want %q", p, got, want)
		}
	}
	for p, class := range map[string]error{
		"/no": errdefs.ErrNotFound, "/dangling/": errdefs.ErrNotFound, "/etc/passwd/": errdefs.ErrInvalidArgument,
		"/etc/passwd/x": errdefs.ErrInvalidArgument,
	} {
		if _, err := StatPath(root, p); !errors.Is(err, class) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := StatPath(root, "/loop"); err == nil {
		t.Error("a loop has a target")
	}
}

func TestPackPath(t *testing.T) {
	root := container(t)
	for p, want := range map[string]string{
		"/etc/passwd":      "passwd",
		"/etc":             "etc/\netc/passwd\netc/sub/\netc/sub/x",
		"/etc/":            "etc/\netc/passwd\netc/sub/\netc/sub/x",
		"/etc/.":           "./\n./passwd\n./sub/\n./sub/x",
		"/abs":             "abs -> /etc",
		"/abs/":            "abs/\nabs/passwd\nabs/sub/\nabs/sub/x",
		"/abs/sub":         "sub/\nsub/x",
		"/out/passwd":      "passwd",
		"/dangling":        "dangling -> /nowhere/x",
		"../../../etc/sub": "sub/\nsub/x",
	} {
		var b bytes.Buffer
		if err := PackPath(context.Background(), root, p, &b); err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if got := names(t, b.Bytes()); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", p, got, want)
		}
	}
	var b bytes.Buffer
	if err := PackPath(context.Background(), root, "/", &b); err != nil || !strings.HasPrefix(names(t, b.Bytes()), "/\n/abs -> /etc\n/chain") {
		t.Errorf("the root: %v\n%s", err, names(t, b.Bytes()))
	}
	if err := PackPath(context.Background(), root, "/no", &b); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}

func TestUnpackPath(t *testing.T) {
	data := archive(t, e{name: "./", mode: 0o700}, e{name: "new", content: "2"}, e{name: "/sub/y", content: "3"}) // absolute: below where it unpacks
	for dir, where := range map[string]string{"/etc": "etc", "/abs": "etc", "/out/": "etc", "/abs/sub/..": "etc", "/": ".", "/etc/sub/.": "etc/sub"} {
		root := container(t)
		if err := UnpackPath(context.Background(), root, dir, bytes.NewReader(data), PathOptions{}); err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		for _, name := range []string{"new", "sub/y"} {
			if _, err := os.Lstat(filepath.Join(root.Name(), where, name)); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
		}
		if fi, err := os.Stat(filepath.Join(root.Name(), where)); err != nil || fi.Mode().Perm() == 0o700 {
			t.Errorf("%s: the directory's own mode changed: %v, %v", dir, fi.Mode(), err)
		}
	}
	root := container(t)
	if err := UnpackPath(context.Background(), root, "/abs/sub", bytes.NewReader(data), PathOptions{TakeRoot: true}); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(filepath.Join(root.Name(), "etc/sub")); err != nil || fi.Mode().Perm() != 0o700 || !fi.ModTime().Equal(someTime) {
		t.Errorf("the directory did not take the root's attributes: %v, %v", fi, err)
	}
	for dir, class := range map[string]error{"/no": errdefs.ErrNotFound, "/etc/passwd": errdefs.ErrInvalidArgument, "/file": errdefs.ErrInvalidArgument} {
		if err := UnpackPath(context.Background(), root, dir, bytes.NewReader(data), PathOptions{}); !errors.Is(err, class) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	// Through links that lie below the directory, one of which climbs too far.
	data = archive(t, e{name: "abs/through", content: "1"}, e{name: "out/climbed", content: "2"})
	if err := UnpackPath(context.Background(), root, "/", bytes.NewReader(data), PathOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/through", "etc/climbed"} {
		if _, err := os.Lstat(filepath.Join(root.Name(), name)); err != nil {
			t.Error(err)
		}
	}
}

func TestUnpackPathOverwrites(t *testing.T) {
	for name, test := range map[string]struct {
		entry  e
		says   string
		result string
	}{
		"directory by file": {e{name: "sub", content: "f"}, "cannot overwrite directory", "passwd=root\nsub=f"},
		"file by directory": {e{name: "passwd/"}, "cannot overwrite non-directory", "passwd/\nsub/\nsub/x=1"},
		"file by file":      {e{name: "passwd", content: "new"}, "", "passwd=new\nsub/\nsub/x=1"},
		"directory by link": {e{name: "sub", typ: sym, content: "x"}, "cannot overwrite directory", "passwd=root\nsub -> x"},
	} {
		t.Run(name, func(t *testing.T) {
			data := archive(t, test.entry)
			root := container(t)
			err := UnpackPath(context.Background(), root, "/etc", bytes.NewReader(data), PathOptions{NoOverwriteDirNonDir: true})
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("refusing: %v", err)
			}
			root = container(t)
			if err := UnpackPath(context.Background(), root, "/etc", bytes.NewReader(data), PathOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := list(t, filepath.Join(root.Name(), "etc")); got != test.result {
				t.Errorf("got\n%s\nwant\n%s", got, test.result)
			}
		})
	}
}

// What is a hole for the file system is not read to be packed, and what is zeros
// in an archive, which has no other way to say it, is a hole again.
func TestHoles(t *testing.T) {
	dir := t.TempDir()
	const size = 5 << 30
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	marks := []int64{0, 3<<30 + 12345, size - 3}
	for _, at := range marks {
		if _, err := f.WriteAt([]byte("end"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(Pack(t.Context(), root, w, PackOptions{})) }()
	back := t.TempDir()
	to, err := os.Open(back)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if _, err := Unpack(t.Context(), to, r, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(back, "sparse"), &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("it has %d bytes and takes %d (%v)", st.Size, st.Blocks*512, err)
	}
	got, err := os.Open(filepath.Join(back, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	for _, at := range marks {
		var b [3]byte
		if _, err := got.ReadAt(b[:], at); err != nil || string(b[:]) != "end" {
			t.Errorf("at %d is %q (%v)", at, b, err)
		}
	}
}
