package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	link = tar.TypeLink
	sym  = tar.TypeSymlink
	char = tar.TypeChar
)

func TestUnpackTrees(t *testing.T) {
	needRoot(t)
	for name, test := range map[string]struct {
		entries []e
		mode    Whiteouts
		want    string
	}{
		"files and directories": {
			entries: []e{{name: "a/"}, {name: "a/b", content: "1"}, {name: "./c/d/e", content: "2"}},
			want:    "a/\na/b=1\nc/\nc/d/\nc/d/e=2",
		},
		"long names": {
			entries: []e{{name: strings.Repeat("d", 200) + "/" + strings.Repeat("f", 200), content: "1"}},
			want:    strings.Repeat("d", 200) + "/\n" + strings.Repeat("d", 200) + "/" + strings.Repeat("f", 200) + "=1",
		},
		"hard links across directories": {
			entries: []e{{name: "a/f", content: "1"}, {name: "b/g", typ: link, content: "a/f"}, {name: "h", typ: link, content: "/b/g"}},
			want:    "a/\na/f=1\nb/\nb/g=1\nh=1",
		},
		"hard link to a symbolic link": {
			entries: []e{{name: "s", typ: sym, content: "nowhere"}, {name: "t", typ: link, content: "s"}},
			want:    "s -> nowhere\nt -> nowhere",
		},
		"hard link to itself": {
			entries: []e{{name: "f", content: "1"}, {name: "f", typ: link, content: "f"}},
			want:    "f=1",
		},
		"devices and fifos": {
			entries: []e{{name: "null", typ: char, major: 1, minor: 3}, {name: "p", typ: tar.TypeFifo}, {name: "b", typ: tar.TypeBlock, major: 259, minor: 300}},
			want:    "b dev 259:300\nnull dev 1:3\np|",
		},
		"the last of several wins": {
			entries: []e{
				{name: "f", content: "1"}, {name: "f", content: "2"},
				{name: "d/x", content: "1"}, {name: "d", content: "file"},
				{name: "g", content: "file"}, {name: "g/"}, {name: "g/y", content: "2"},
				{name: "s", typ: sym, content: "f"}, {name: "s", content: "not through the link"},
				{name: "n", content: "x"}, {name: "n", typ: sym, content: "f"},
			},
			want: "d=file\nf=2\ng/\ng/y=2\nn -> f\ns=not through the link",
		},
		"merged usr": {
			entries: []e{{name: "usr/lib/"}, {name: "lib", typ: sym, content: "usr/lib"}, {name: "lib/x", content: "1"},
				{name: "var/run", typ: sym, content: "/run"}, {name: "run/"}, {name: "var/run/pid", content: "2"},
				{name: "up", typ: sym, content: "var/../usr/./lib/"}, {name: "up/y", content: "3"},
				{name: "hl", typ: link, content: "lib/x"}},
			want: "hl=1\nlib -> usr/lib\nrun/\nrun/pid=2\nup -> var/../usr/./lib/\nusr/\nusr/lib/\nusr/lib/x=1\nusr/lib/y=3\nvar/\nvar/run -> /run",
		},
		"link to a directory that comes later": {
			entries: []e{{name: "lib", typ: sym, content: "usr/lib"}, {name: "lib/x", content: "1"}, {name: "usr/lib/"}},
			want:    "lib -> usr/lib\nusr/\nusr/lib/\nusr/lib/x=1",
		},
		"links pointing out are only links": {
			entries: []e{{name: "a", typ: sym, content: "../../etc/passwd"}, {name: "b", typ: sym, content: "/etc/passwd"}},
			want:    "a -> ../../etc/passwd\nb -> /etc/passwd",
		},
		"a link replaced by a directory is entered no more": {
			entries: []e{{name: "x/"}, {name: "l", typ: sym, content: "x"}, {name: "l/1", content: "1"}, {name: "l/"}, {name: "l/2", content: "2"}},
			want:    "l/\nl/2=2\nx/\nx/1=1",
		},
		"a directory replaced by a link": {
			entries: []e{{name: "l/1", content: "1"}, {name: "x/"}, {name: "l", typ: sym, content: "x"}, {name: "l/2", content: "2"}},
			want:    "l -> x\nx/\nx/2=2",
		},
		"whiteouts literally": {
			entries: []e{{name: "d/.wh.x"}, {name: "d/.wh..wh..opq"}},
			want:    "d/\nd/.wh..wh..opq=\nd/.wh.x=",
		},
		"whiteouts for overlayfs": {
			mode:    Overlay,
			entries: []e{{name: "d/.wh.x"}, {name: "o/"}, {name: "o/.wh..wh..opq"}, {name: "o/new", content: "1"}, {name: ".wh..wh.plnk/"}},
			want:    "d/\nd/x dev 0:0\no/ opaque\no/new=1",
		},
		"whiteouts are about lower layers": {
			mode: Overlay,
			entries: []e{
				{name: "f", content: "1"}, {name: ".wh.f"}, {name: ".wh.g"}, {name: "g", content: "2"},
				{name: "d/x", content: "3"}, {name: ".wh.d"}, {name: ".wh.i"}, {name: "i/y", content: "4"},
				{name: ".wh.j"}, {name: "j/"},
			},
			want: "d/ opaque\nd/x=3\nf=1\ng=2\ni/ opaque\ni/y=4\nj/ opaque",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := unpackTo(t, archive(t, test.entries...), UnpackOptions{Whiteouts: test.mode})
			if err != nil {
				t.Fatal(err)
			}
			if got := list(t, dir); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		entries []e
		says    string
	}{
		"parent":               {[]e{{name: "../evil", content: "x"}}, "leads out of the root"},
		"parent in the middle": {[]e{{name: "a/../../evil", content: "x"}}, "leads out of the root"},
		"absolute":             {[]e{{name: "/evil", content: "x"}}, "is absolute"},
		"through a link":       {[]e{{name: "l", typ: sym, content: "../.."}, {name: "l/evil", content: "x"}}, "through a symbolic link"},
		"through two links": {[]e{{name: "a/b/"}, {name: "a/b/up", typ: sym, content: "../.."}, {name: "m", typ: sym, content: "a/b/up/.."},
			{name: "m/evil", content: "x"}}, "through a symbolic link"},
		"hard link out":      {[]e{{name: "l", typ: link, content: "../../etc/passwd"}}, "hard link"},
		"hard link missing":  {[]e{{name: "l", typ: link, content: "nothing"}}, "does not have"},
		"hard link by link":  {[]e{{name: "d", typ: sym, content: "../.."}, {name: "l", typ: link, content: "d/etc/passwd"}}, "through a symbolic link"},
		"loop":               {[]e{{name: "a", typ: sym, content: "b"}, {name: "b", typ: sym, content: "a"}, {name: "a/x", content: "1"}}, "loop"},
		"below a file":       {[]e{{name: "a", content: "1"}, {name: "a/x", content: "1"}}, "not a directory"},
		"whiteout of parent": {[]e{{name: "a/.wh..."}}, "whiteout"},
		"root is a file":     {[]e{{name: ".", content: "x"}}, "not a directory"},
		"owner 2^32":         {[]e{{name: "x", content: "1", uid: 1 << 32}}, "no user and group"},
		"owner -1":           {[]e{{name: "x", content: "1", gid: 1<<32 - 1}}, "no user and group"},
		"unknown type":       {[]e{{name: "x", typ: 'Z'}}, "unknown type"},
		"name too long":      {[]e{{name: strings.Repeat("x", 300), content: "1"}}, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "in", "root")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := Unpack(context.Background(), openDirectory(t, dir), bytes.NewReader(archive(t, test.entries...)), UnpackOptions{Whiteouts: Overlay})
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v", err)
			}
			if got := strings.Split(list(t, outer), "\n"); len(got) < 2 || got[0] != "in/" || got[1] != "in/root/" {
				t.Errorf("something was written outside:\n%s", strings.Join(got, "\n"))
			}
			for _, line := range strings.Split(list(t, outer), "\n") {
				if strings.Contains(line, "evil=") {
					t.Errorf("%s was written", line)
				}
			}
		})
	}
}

// A layer that is cut off or flipped must not count as unpacked.
func TestUnpackDamaged(t *testing.T) {
	whole := archive(t, e{name: "a", content: strings.Repeat("x", 5000)}, e{name: "b", content: "1"})
	for _, cut := range []int{10, 512, 600, 5000, 6000} {
		dir, err := unpackTo(t, whole[:cut], UnpackOptions{})
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if got := list(t, dir); got != "" && cut < 5500 {
			t.Errorf("cut at %d left %.20s", cut, got)
		}
	}
	// As umoci writes it, and only who knows its digest can know that it is whole.
	short := archive(t, e{name: "a", content: strings.Repeat("x", 5000)})
	short = short[:bytes.LastIndexByte(short, 'x')+1]
	if _, err := unpackTo(t, short, UnpackOptions{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("without the padding: %v", err)
	}
	if _, err := unpackTo(t, short, UnpackOptions{Verified: true}); err != nil {
		t.Errorf("without the padding, verified: %v", err)
	}
	flipped := bytes.Clone(whole)
	flipped[100] ^= 0xff
	if _, err := unpackTo(t, flipped, UnpackOptions{}); err == nil {
		t.Error("a damaged header is accepted")
	}
	failing := io.MultiReader(bytes.NewReader(whole), errReader{})
	_, err := Unpack(context.Background(), openDirectory(t, t.TempDir()), failing, UnpackOptions{})
	if !errors.Is(err, errBroken) {
		t.Errorf("an error after the archive's end is lost: %v", err)
	}
}

var errBroken = errors.New("broken pipe to the registry")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

func TestUnpackCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Unpack(ctx, openDirectory(t, t.TempDir()), bytes.NewReader(archive(t, e{name: "a"})), UnpackOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestUnpackAttributes(t *testing.T) {
	needRoot(t)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	data := archive(t,
		e{name: "./", mode: 0o1750, uid: 11, gid: 12},
		e{name: "d/", mode: 0o2771, uid: 7, gid: 8, xattrs: map[string]string{"user.k": "on directory"}},
		e{name: "d/suid", content: "1", mode: 0o4755, uid: 1000, gid: 1001},
		e{name: "d/cap", content: "1", mode: 0o755, uid: 5, gid: 6, xattrs: map[string]string{"security.capability": capability}},
		e{name: "d/plain", content: "1", mode: 0o666},
		e{name: "d/s", typ: sym, content: "x", uid: 3, gid: 4},
		e{name: "d/p", typ: tar.TypeFifo, mode: 0o622, uid: 3, gid: 4},
		e{name: "d/evil", content: "1", xattrs: map[string]string{"trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/x", "user.overlay.opaque": "y", "security.selinux": "x"}},
		e{name: "d/bsd", content: "1", pax: map[string]string{"LIBARCHIVE.xattr.user.a%20b": "dmFsdWU"}},
	)
	old := unix.Umask(0o077) // attributes must not depend on it
	dir, err := unpackTo(t, data, UnpackOptions{Whiteouts: Overlay})
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name     string
		mode     uint32
		uid, gid uint32
	}{
		{".", 0o1750, 11, 12}, {"d", 0o2771, 7, 8}, {"d/suid", 0o4755, 1000, 1001}, {"d/cap", 0o755, 5, 6},
		{"d/plain", 0o666, 0, 0}, {"d/s", 0o777, 3, 4}, {"d/p", 0o622, 3, 4},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, want.name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != want.mode || st.Uid != want.uid || st.Gid != want.gid {
			t.Errorf("%s has %o %d:%d, want %o %d:%d", want.name, st.Mode&0o7777, st.Uid, st.Gid, want.mode, want.uid, want.gid)
		}
		if st.Mtim.Nano() != someTime.UnixNano() {
			t.Errorf("%s was changed at %d, want %d", want.name, st.Mtim.Nano(), someTime.UnixNano())
		}
	}
	for _, want := range [][3]string{
		{"d", "user.k", "on directory"}, {"d/cap", "security.capability", capability}, {"d/bsd", "user.a b", "value"},
		{"d/evil", "trusted.overlay.opaque", ""}, {"d/evil", "trusted.overlay.redirect", ""},
		{"d/evil", "user.overlay.opaque", ""}, {"d/evil", "security.selinux", ""},
	} {
		if got := xattr(filepath.Join(dir, want[0]), want[1]); got != want[2] {
			t.Errorf("%s has %s=%q, want %q", want[0], want[1], got, want[2])
		}
	}
}

func TestUnpackOwners(t *testing.T) {
	needRoot(t)
	data := archive(t, e{name: "d/", uid: 5, gid: 6}, e{name: "d/f", content: "1", uid: 5, gid: 6})
	for name, test := range map[string]struct {
		opts     UnpackOptions
		uid, gid uint32
	}{
		"chown": {UnpackOptions{Chown: &Owner{100, 200}}, 100, 200},
		"map": {UnpackOptions{MapOwner: func(o Owner) (Owner, error) {
			return Owner{o.UID + 100000, o.GID + 100000}, nil
		}}, 100005, 100006},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := unpackTo(t, data, test.opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{"d", "d/f"} {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(dir, p), &st); err != nil || st.Uid != test.uid || st.Gid != test.gid {
					t.Errorf("%s belongs to %d:%d (%v)", p, st.Uid, st.Gid, err)
				}
			}
		})
	}
	_, err := unpackTo(t, data, UnpackOptions{MapOwner: func(Owner) (Owner, error) { return Owner{}, errBroken }})
	if !errors.Is(err, errBroken) {
		t.Errorf("the failure to map is lost: %v", err)
	}
}

// Remove carries deletions out on the tree that is there.
func TestUnpackRemoves(t *testing.T) {
	dir, err := unpackTo(t, archive(t,
		e{name: "gone/deep/x", content: "1"}, e{name: "file", content: "1"},
		e{name: "o/old", content: "1"}, e{name: "o/sub/old", content: "1"}, e{name: "keep", content: "1"},
	), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second := archive(t,
		e{name: ".wh.gone"}, e{name: ".wh.file"}, e{name: ".wh.never"},
		e{name: "o/new", content: "2"}, e{name: "o/sub/new", content: "2"}, e{name: "o/.wh..wh..opq"},
	)
	if _, err := Unpack(context.Background(), openDirectory(t, dir), bytes.NewReader(second), UnpackOptions{Whiteouts: Remove}); err != nil {
		t.Fatal(err)
	}
	want := "keep=1\no/\no/new=2\no/sub/\no/sub/new=2"
	if got := list(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
