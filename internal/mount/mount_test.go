package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
}

// layers makes n directories with a file each, topmost first.
func layers(t *testing.T, dir string, n int) []string {
	t.Helper()
	var dirs []string
	for i := range n {
		d := filepath.Join(dir, fmt.Sprintf("%d", i))
		must(t, os.MkdirAll(d, 0o755))
		must(t, os.WriteFile(filepath.Join(d, fmt.Sprintf("from%d", i)), []byte("x"), 0o644))
		must(t, os.WriteFile(filepath.Join(d, "same"), fmt.Append(nil, i), 0o644))
		dirs = append(dirs, d)
	}
	return dirs
}

func overlay(lower []string, upper, work string) Mount {
	var escaped []string
	for _, d := range lower {
		escaped = append(escaped, EscapeLower(d))
	}
	m := Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(escaped, ":")}}
	if upper != "" {
		m.Options = append(m.Options, "upperdir="+EscapeDir(upper), "workdir="+EscapeDir(work))
	}
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root *os.File, name string) string {
	t.Helper()
	fd, err := unix.Openat(int(root.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	data, err := io.ReadAll(f)
	must(t, err)
	return string(data)
}

func write(t *testing.T, root *os.File, name, content string) {
	t.Helper()
	fd, err := unix.Openat(int(root.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	must(t, err)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	_, err = f.WriteString(content)
	must(t, err)
}

// hidden checks that the host sees no mount of or on dir.
func hidden(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(data), dir) || strings.Contains(string(data), "gantry-mount-") {
		t.Errorf("the mount shows up on the host:\n%s", data)
	}
}

func TestDetachedOverlay(t *testing.T) {
	needRoot(t)
	odd := filepath.Join(t.TempDir(), `a:b,c\d`)
	long := filepath.Join(t.TempDir(), strings.Repeat("l", 200), strings.Repeat("m", 200))
	for name, test := range map[string]struct {
		dir string
		n   int
	}{
		"two layers":           {t.TempDir(), 2},
		"more than one page":   {t.TempDir(), 200},
		"odd characters":       {odd, 3},
		"long directory names": {long, 3},
	} {
		for _, way := range []struct {
			name string
			f    func([]Mount) (*os.File, error)
		}{
			{"detached", Detached},
			{"private namespace", func(m []Mount) (*os.File, error) { return private(m[0]) }},
		} {
			t.Run(name+"/"+way.name, func(t *testing.T) {
				dir := filepath.Join(test.dir, strings.ReplaceAll(way.name, " ", ""))
				lower := layers(t, filepath.Join(dir, "l"), test.n)
				upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
				must(t, os.Mkdir(upper, 0o755))
				must(t, os.Mkdir(work, 0o755))
				f, err := way.f([]Mount{overlay(lower, upper, work)})
				must(t, err)
				defer f.Close()
				if got := read(t, f, "same"); got != "0" {
					t.Errorf("the topmost layer is %q", got)
				}
				read(t, f, fmt.Sprintf("from%d", test.n-1))
				write(t, f, "new", "written")
				if data, err := os.ReadFile(filepath.Join(upper, "new")); err != nil || string(data) != "written" {
					t.Errorf("the upper directory has %q, %v", data, err)
				}
				hidden(t, dir)
				// As the root of a container: attached in another namespace.
				target := t.TempDir()
				must(t, inPrivate(func() error {
					if err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
						return fmt.Errorf("move_mount: %w", err)
					}
					_, err := os.Stat(filepath.Join(target, "new"))
					return err
				}))
			})
		}
	}
}

func TestDetachedBind(t *testing.T) {
	needRoot(t)
	dir := layers(t, t.TempDir(), 1)[0]
	f, err := Detached([]Mount{{Type: "bind", Source: dir, Options: []string{"rbind", "ro"}}})
	must(t, err)
	defer f.Close()
	read(t, f, "from0")
	_, err = unix.Openat(int(f.Fd()), "new", unix.O_WRONLY|unix.O_CREAT, 0o644)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("writing gives %v, not EROFS", err)
	}
}

// A part of a file system is mounted as those inside of it would find it.
func TestDetachedPart(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	lower := layers(t, dir, 2)
	must(t, os.MkdirAll(filepath.Join(lower[1], "a", "b"), 0o755))
	must(t, os.WriteFile(filepath.Join(lower[1], "a", "b", "file"), []byte("deep"), 0o644))
	must(t, os.Symlink("/a", filepath.Join(lower[0], "link")))
	must(t, os.Symlink("../../../../../../a", filepath.Join(lower[0], "up")))
	of := func(m Mount, part string) (*os.File, error) {
		m.Options = append(slices.Clone(m.Options), Subdir+part)
		return Detached([]Mount{m})
	}
	bind := Mount{Type: "bind", Source: lower[1], Options: []string{"rbind", "ro"}}
	for _, m := range []Mount{overlay(lower, "", ""), bind} {
		for part, file := range map[string]string{"a": "b/file", "a/b": "file", "/a/../a/b": "file", "link/b": "file", "up/b": "file"} {
			if m.Type == "bind" && (part == "link/b" || part == "up/b") {
				continue
			}
			f, err := of(m, part)
			must(t, err)
			if got := read(t, f, file); got != "deep" {
				t.Errorf("%s of the %s has %q", part, m.Type, got)
			}
			if _, err := unix.Openat(int(f.Fd()), "new", unix.O_WRONLY|unix.O_CREAT, 0o644); err != unix.EROFS {
				t.Errorf("%s of the %s can be written to: %v", part, m.Type, err)
			}
			f.Close()
		}
		f, err := of(m, "a/b/file")
		must(t, err)
		if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("a file is %v, %v", fi.Mode(), err)
		}
		f.Close()
		if _, err := of(m, "a/c"); !errdefs.IsNotFound(err) {
			t.Errorf("what is missing: %v", err)
		}
	}
	hidden(t, dir)
}

func TestDetachedFails(t *testing.T) {
	needRoot(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for _, m := range []Mount{
		{Type: "bind", Source: missing},
		overlay([]string{missing, missing}, "", ""),
		{Type: "nosuchfs", Source: "x"},
		overlay([]string{t.TempDir()}, "", "nosuch"),
	} {
		f, err := Detached([]Mount{m})
		if err == nil {
			f.Close()
			t.Errorf("%v could be mounted", m)
			continue
		}
		if !strings.HasPrefix(err.Error(), "cannot mount "+m.Type) {
			t.Errorf("the error does not say what failed: %v", err)
		}
	}
}

func TestAssemble(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	lower := layers(t, filepath.Join(dir, "l"), 2)
	must(t, os.Symlink("/real", filepath.Join(lower[0], "link")))
	must(t, os.Mkdir(filepath.Join(lower[0], "real"), 0o755))
	upper, work, volume := filepath.Join(dir, "u"), filepath.Join(dir, "w"), filepath.Join(dir, "v")
	for _, d := range []string{upper, work, volume} {
		must(t, os.Mkdir(d, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(volume, "data"), []byte("kept"), 0o644))
	must(t, os.Symlink("there/../nowhere", filepath.Join(lower[0], "dangling")))
	must(t, os.Symlink("../../../../outside", filepath.Join(lower[0], "out")))
	must(t, os.Symlink("loop", filepath.Join(lower[0], "loop")))
	bind := func(source string, options ...string) *os.File {
		f, err := Detached([]Mount{{Type: "bind", Source: source, Options: append([]string{"rbind"}, options...)}})
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	tree, err := Assemble([]Mount{overlay(lower, upper, work)}, []Bind{
		{bind(volume), "/link"},
		{bind(volume, "ro"), "/made/for/it"},
		{bind(filepath.Join(volume, "data")), "/from0"},
		{bind(volume), "/dangling/deeper"},
		{bind(volume), "/out"},
	}, true)
	must(t, err)
	defer tree.Close()
	for _, name := range []string{"real/data", "made/for/it/data", "from0", "nowhere/deeper/data", "outside/data"} {
		if got := read(t, tree.Root, name); got != "kept" {
			t.Errorf("%s is %q", name, got)
		}
	}
	if _, err := unix.Openat(int(tree.Root.Fd()), "no", unix.O_WRONLY|unix.O_CREAT, 0o644); err != unix.EROFS {
		t.Errorf("writing to a read-only root gives %v", err)
	}
	if _, err := Assemble([]Mount{overlay(lower, "", "")}, []Bind{{bind(volume), "/loop/x"}}, false); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a target in a loop gives %v", err)
	}
	write(t, tree.Root, "real/new", "x")
	if _, err := os.Stat(filepath.Join(volume, "new")); err != nil {
		t.Error(err)
	}
	if _, err := unix.Openat(int(tree.Root.Fd()), "made/for/it/no", unix.O_WRONLY|unix.O_CREAT, 0o644); err != unix.EROFS {
		t.Errorf("writing to a read-only volume gives %v", err)
	}
	hidden(t, dir)
}

func TestRootOf(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "hidden"), []byte("seen"), 0o644))
	// A process whose root has a mount over the file.
	script := `mount --make-rprivate / && mount --bind "$1" "$1" && mkdir -p "$1/etc" && mount -t tmpfs t "$1/etc" && touch "$1/etc/onTmpfs" && cp /bin/busybox "$1/sh" && exec chroot "$1" /sh -c 'echo ready; read x'`
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs a static busybox")
	}
	cmd := exec.Command("unshare", "-m", "sh", "-ec", script, "sh", dir)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	defer cmd.Wait()
	defer stdin.Close()
	line := make([]byte, 6)
	if _, err := io.ReadFull(stdout, line); err != nil {
		t.Fatal(err)
	}
	proc, err := os.Open(fmt.Sprintf("/proc/%d", cmd.Process.Pid))
	must(t, err)
	defer proc.Close()
	root, err := RootOf(proc)
	must(t, err)
	defer root.Close()
	if got := read(t, root, "hidden"); got != "seen" {
		t.Errorf("hidden is %q", got)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(root.Fd()), "etc/onTmpfs", &st, 0); err != unix.ENOENT {
		t.Errorf("what is mounted below the root is visible: %v", err)
	}
}

func TestSplitLower(t *testing.T) {
	for _, dirs := range [][]string{{"/a"}, {"/a", "/b"}, {`/a:b`, `/c\`, "/d,e"}, {`\`, ":", ","}} {
		var escaped []string
		for _, d := range dirs {
			escaped = append(escaped, EscapeLower(d))
		}
		if got := SplitLower(strings.Join(escaped, ":")); !slices.Equal(got, dirs) {
			t.Errorf("%q became %q", dirs, got)
		}
	}
}

func TestLegacy(t *testing.T) {
	var lower []string
	for i := range 300 {
		lower = append(lower, fmt.Sprintf("/var/lib/somewhere/l/%06d", i))
	}
	l, err := overlay(lower, "/u", "/w").Legacy()
	must(t, err)
	if l.Dir != "/var/lib/somewhere/l" || !strings.HasPrefix(l.Data, "lowerdir=000000:000001:") {
		t.Errorf("not shortened: in %s, %.60s", l.Dir, l.Data)
	}
	for i := range lower {
		lower[i] += strings.Repeat("x", 20)
	}
	if _, err := overlay(lower, "/u", "/w").Legacy(); err == nil {
		t.Error("more than a page is accepted")
	}
	l, err = Mount{Type: "bind", Source: "/x", Options: []string{"rbind", "ro"}}.Legacy()
	must(t, err)
	if l.Flags != unix.MS_BIND|unix.MS_REC|unix.MS_RDONLY || l.Data != "" {
		t.Errorf("a bind became %+v", l)
	}
}
