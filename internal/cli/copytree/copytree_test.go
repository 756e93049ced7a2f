package copytree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree lists what is below dir: directories end in a slash, files have their
// content, links their target.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case e.IsDir():
			got[rel+"/"] = ""
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			got[rel] = "-> " + target
			return err
		default:
			text, err := os.ReadFile(p)
			got[rel] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func archive(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range entries {
		body := h.Uname // carries the content here
		h.Uname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Size, h.Mode = int64(len(body)), h.Mode|0o644
		if h.Typeflag == tar.TypeDir {
			h.Mode |= 0o755
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tw, body)
	}
	tw.Close()
	return b.Bytes()
}

func dirEntry(name string) tar.Header        { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func fileEntry(name, text string) tar.Header { return tar.Header{Name: name, Uname: text} }

// The rules of cp -r, out of a container: what exists at the destination decides
// the name.
func TestCopyOut(t *testing.T) {
	file := archive(t, fileEntry("f", "new"))
	dir := archive(t, dirEntry("d/"), fileEntry("d/x", "1"), dirEntry("d/sub/"), fileEntry("d/sub/y", "2"))
	contents := archive(t, dirEntry("./"), fileEntry("./x", "1"))
	for _, tt := range []struct {
		name, src string
		isDir     bool
		stream    []byte
		dst       string
		want      map[string]string
		err       string
	}{
		{"file to new name", "/f", false, file, "new", map[string]string{"new": "new"}, ""},
		{"file over file", "/f", false, file, "old", map[string]string{"old": "new"}, ""},
		{"file into directory", "/f", false, file, "dir", map[string]string{"dir/f": "new"}, ""},
		{"file to missing directory", "/f", false, file, "nosuch/", nil, "no such directory"},
		{"file to file with a slash", "/f", false, file, "old/", nil, "not a directory"},
		{"directory to new name", "/d", true, dir, "new", map[string]string{"new/": "", "new/x": "1", "new/sub/": "", "new/sub/y": "2"}, ""},
		{"directory into directory", "/d", true, dir, "dir", map[string]string{"dir/d/": "", "dir/d/x": "1", "dir/d/sub/": "", "dir/d/sub/y": "2"}, ""},
		{"contents into directory", "/d/.", true, contents, "dir", map[string]string{"dir/x": "1"}, ""},
		{"contents to new name", "/d/.", true, contents, "new", map[string]string{"new/": "", "new/x": "1"}, ""},
		{"directory over file", "/d", true, dir, "old", nil, "cannot copy directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			t.Chdir(root)
			os.Mkdir("dir", 0o755)
			os.WriteFile("old", []byte("old"), 0o644)
			want := map[string]string{"dir/": "", "old": "old"}
			for k, v := range tt.want {
				want[k] = v
			}
			target, err := LocalTarget(tt.src, tt.isDir, tt.dst)
			if err == nil {
				err = Extract(bytes.NewReader(tt.stream), target, Options{Warn: io.Discard})
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, tree(t, root)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The same rules into a container: the archive's names and its directory.
func TestCopyIn(t *testing.T) {
	for _, tt := range []struct {
		src  string
		to   Destination
		dir  string
		want []string
		err  string
	}{
		{"f", Destination{"/tmp", true, true}, "/tmp", []string{"f"}, ""},
		{"f", Destination{"/tmp/new", false, false}, "/tmp", []string{"new"}, ""},
		{"f", Destination{"/tmp/new/", false, false}, "", nil, "no such directory"},
		{"f", Destination{"/tmp/old", true, false}, "/tmp", []string{"old"}, ""},
		{"f/", Destination{"/tmp", true, true}, "", nil, "not a directory"},
		{"d", Destination{"/tmp", true, true}, "/tmp", []string{"d/", "d/l", "d/x"}, ""},
		{"d/", Destination{"/tmp", true, true}, "/tmp", []string{"d/", "d/l", "d/x"}, ""},
		{"d/.", Destination{"/tmp", true, true}, "/tmp", []string{"./", "l", "x"}, ""},
		{"d", Destination{"/tmp/new", false, false}, "/tmp", []string{"new/", "new/l", "new/x"}, ""},
		{"d", Destination{"/tmp/old", true, false}, "", nil, "cannot copy directory"},
		{"nosuch", Destination{"/tmp", true, true}, "", nil, "no such file"},
	} {
		t.Run(tt.src+" to "+tt.to.Path, func(t *testing.T) {
			t.Chdir(t.TempDir())
			os.WriteFile("f", []byte("f"), 0o644)
			os.Mkdir("d", 0o755)
			os.WriteFile("d/x", []byte("x"), 0o600)
			os.Symlink("x", "d/l")
			p, err := Pack(tt.src, false, tt.to)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var names []string
			for tr := tar.NewReader(p); ; {
				h, err := tr.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, h.Name)
			}
			if diff := cmp.Diff(tt.want, names); diff != "" || p.Dir != tt.dir {
				t.Errorf("in %q: %s", p.Dir, diff)
			}
		})
	}
}

// A container cannot make cp write anywhere but below the destination.
func TestExtractStaysInside(t *testing.T) {
	for name, stream := range map[string][]byte{
		"dots":             archive(t, dirEntry("d/"), fileEntry("d/../../evil", "x")),
		"absolute":         archive(t, dirEntry("d/"), fileEntry("/evil", "x")),
		"another symlink":  archive(t, dirEntry("d/"), tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../../outside"}, fileEntry("d/l/evil", "x")),
		"symlink itself":   archive(t, dirEntry("d/"), tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../../outside/evil"}, fileEntry("d/l", "x")),
		"relative symlink": archive(t, dirEntry("d/"), tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../../outside"}, fileEntry("d/l/evil", "x")),
		"hard link":        archive(t, dirEntry("d/"), tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../../outside"}, tar.Header{Name: "d/h", Typeflag: tar.TypeLink, Linkname: "d/l/kept"}, fileEntry("d/h", "x")),
		"root symlink":     archive(t, tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "../outside"}, fileEntry("d/evil", "x")),
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			outside := filepath.Join(root, "outside")
			os.Mkdir(outside, 0o755)
			os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o644)
			os.Mkdir(filepath.Join(root, "dst"), 0o755)
			_ = Extract(bytes.NewReader(stream), filepath.Join(root, "dst", "d"), Options{Warn: io.Discard})
			if diff := cmp.Diff(map[string]string{"kept": "kept"}, tree(t, outside)); diff != "" {
				t.Error(diff)
			}
			if got := tree(t, root); got["evil"] != "" || got["dst/evil"] != "" {
				t.Errorf("written outside: %v", got)
			}
		})
	}
}

// Links and times survive, set-id bits do not unless owners are kept.
func TestExtractAttributes(t *testing.T) {
	dst := t.TempDir()
	stream := archive(t, dirEntry("d/"), tar.Header{Name: "d/suid", Mode: 0o4755, Uname: "x"}, tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/suid"}, tar.Header{Name: "d/soft", Typeflag: tar.TypeSymlink, Linkname: "suid"}, tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo})
	var warned strings.Builder
	if err := Extract(bytes.NewReader(stream), filepath.Join(dst, "new"), Options{Warn: &warned}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"new/": "", "new/suid": "x", "new/hard": "x", "new/soft": "-> suid"}, tree(t, dst)); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(dst, "new/suid"))
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if !strings.Contains(warned.String(), "d/fifo is left out") {
		t.Errorf("warned %q", warned.String())
	}
}

// Extracting what was packed gives the same tree.
func FuzzExtract(f *testing.F) {
	f.Add(archive(f, dirEntry("d/"), fileEntry("d/x", "1"), tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, fileEntry("d/l/passwd", "x")))
	f.Add(archive(f, fileEntry("f", "x"), fileEntry("f", "y"), dirEntry("f/")))
	f.Add(archive(f, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "../b"}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		root := t.TempDir()
		os.Mkdir(filepath.Join(root, "dst"), 0o755)
		_ = Extract(bytes.NewReader(stream), filepath.Join(root, "dst", "d"), Options{Warn: io.Discard})
		entries, err := os.ReadDir(root)
		if err != nil || len(entries) != 1 {
			t.Errorf("beside the destination: %v, %v", entries, err)
		}
		in, err := os.ReadDir(filepath.Join(root, "dst"))
		if err != nil || len(in) > 1 || len(in) == 1 && in[0].Name() != "d" {
			t.Errorf("in the destination: %v, %v", in, err)
		}
	})
}
