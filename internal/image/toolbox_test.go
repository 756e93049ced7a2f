package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-containers/gantry/internal/image/toolbox"
	"github.com/gantry-containers/gantry/internal/snapshot"
)

// unpackToolbox loads the embedded image and returns a root filesystem of it.
func unpackToolbox(t *testing.T) (*rig, string) {
	archive, ok := toolbox.Archive()
	if !ok {
		t.Skip("the toolbox was not built; make toolbox does")
	}
	defer archive.Close()
	r := newRig(t)
	if err := r.Load(t.Context(), archive, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := r.Resolve(t.Context(), toolbox.Name, &host)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.opts.Snapshots.Prepare(t.Context(), "root", img.Layers, snapshot.PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	mounts, err := r.opts.Snapshots.Mounts("root")
	if err != nil || len(mounts) != 1 {
		t.Fatalf("mounts: %v, %v", mounts, err)
	}
	return r, mounts[0].Source
}

func TestToolbox(t *testing.T) {
	_, root := unpackToolbox(t)
	for _, c := range []struct {
		script, want string
	}{
		{`echo hello`, "hello"},
		{`for i in 1 2 3; do echo $i; done | wc -l | tr -d ' '`, "3"},
		{`ls / | sort | head -n 2 | tail -n 1`, "dev"},
		{`mkdir -p /a/b && echo x > /a/b/c && cat /a/b/c && cp /a/b/c /d && mv /d /e && rm /e && rmdir /a/b 2>/dev/null; ls /a/b`, "x\nc"},
		{`printf 'b\na\n' | sort | grep a`, "a"},
		{`env -i A=1 env`, "A=1"},
		{`stat -c '%a %F' /tmp`, "1777 directory"},
		{`whoami; id -u; id`, "root\n0\nuid=0(root) gid=0(root) groups=0(root)"},
		{`ls -d /tmp /bin; ls /nope 2>/dev/null; echo $?; ls -l /etc/passwd | cut -c 1-10`, "/bin\n/tmp\n1\n-rw-r--r--"},
		{`printf '1\n2\n3\n' > /tmp/n; head -1 /tmp/n; tail -n +3 /tmp/n; tail -c 2 /tmp/n`, "1\n3\n3"},
		{`umask 027; touch /tmp/u; stat -c %a /tmp/u; ulimit -c 0; ulimit -c`, "640\n0"},
		{`kill -0 $$ && echo alive`, "alive"},
		{`echo a:b:c | cut -d : -f 2-`, "b:c"},
		{`test -d /etc && [ 1 -lt 2 ] && echo yes`, "yes"},
		{`sleep 0.01; echo $?`, "0"},
		{`find /etc -name passwd`, "/etc/passwd"},
		{`head -c 4 /bin/toolbox | cut -c 2-4`, "ELF"},
		{`sh -c 'echo $0 $1' a b`, "a b"},
		{`sh -ec 'false; echo no'; echo $?`, "1"},
		{`exit 7; echo no`, ""},
		{`uname -s; seq 2; basename /a/b; dirname /a/b; date +%Y > /dev/null; which sh`, "Linux\n1\n2\nb\n/a\n/bin/sh"},
		{`cd /tmp && pwd && ln -s x y && readlink y`, "/tmp\nx"},
		{`chown 1:2 /tmp/y 2>/dev/null; touch /tmp/z && chown nobody:nogroup /tmp/z && stat -c %u:%g /tmp/z`, "65534:65534"},
	} {
		t.Run(c.script, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", c.script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
			cmd.Env = []string{"PATH=/usr/bin:/bin"}
			cmd.Dir = "/"
			var out, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			err := cmd.Run()
			if got := strings.TrimSpace(out.String()); got != c.want {
				t.Errorf("printed %q, %q, %v; want %q", got, stderr.String(), err, c.want)
			}
			if strings.HasPrefix(c.script, "exit 7") && cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("exit status %d", cmd.ProcessState.ExitCode())
			}
		})
	}
}

// Every command is a link to the one program, which must know it.
func TestToolboxCommands(t *testing.T) {
	archive, ok := toolbox.Archive()
	if !ok {
		t.Skip("the toolbox was not built; make toolbox does")
	}
	defer archive.Close()
	outer, err := gzip.NewReader(archive)
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for tr := tar.NewReader(outer); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Size < 1<<20 {
			continue
		}
		inner, err := gzip.NewReader(tr)
		if err != nil {
			t.Fatal(err)
		}
		for lr := tar.NewReader(inner); ; {
			h, err := lr.Next()
			if err != nil {
				break
			}
			if h.Typeflag == tar.TypeSymlink && filepath.Dir(h.Name) == "bin" {
				links++
			}
		}
	}
	if links < 80 {
		t.Errorf("%d commands", links)
	}
}

func TestLoadEmbedded(t *testing.T) {
	r := newRig(t)
	if ok, err := r.LoadEmbedded(t.Context(), "busybox"); ok || err != nil {
		t.Errorf("busybox: %v, %v", ok, err)
	}
	archive, built := toolbox.Archive()
	if built {
		archive.Close()
	}
	for _, ref := range []string{"toolbox", "toolbox:latest", "docker.io/library/toolbox"} {
		ok, err := r.LoadEmbedded(t.Context(), ref)
		if ok != built || err != nil {
			t.Errorf("%s: %v, %v", ref, ok, err)
		}
	}
	if ok, _ := r.LoadEmbedded(t.Context(), "toolbox:other"); ok {
		t.Error("another tag was taken for it")
	}
	if built {
		if _, err := r.Resolve(t.Context(), "toolbox", nil); err != nil {
			t.Error(err)
		}
	}
}
