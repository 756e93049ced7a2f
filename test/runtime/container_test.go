package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestRun(t *testing.T) {
	each(t, func(f *fixture) {
		r := f.gantry(f.run("--rm", "-e", "A=b", "-h", "there", "-u", "web", "-w", "/tmp", "busybox",
			"sh", "-c", "echo $A $(hostname) $(id -u) $(pwd); echo worse >&2; exit 7")...)
		f.want("output", r.out, "b there 33 /tmp")
		f.want("standard error", r.err, "worse")
		f.want("exit code", r.code, 7)
		r = f.fed("one\ntwo\n", f.run("--rm", "-i", "busybox", "wc", "-l")...)
		f.want("lines of the input", r.out, "2")
		r = f.gantry(f.run("--rm", "--init", "busybox", "true")...)
		f.want("exit code with an init", r.code, 0)
	})
}

func TestPrograms(t *testing.T) {
	each(t, func(f *fixture) {
		for _, test := range []struct {
			program string
			code    int
			says    string
		}{
			{"nothing-of-the-kind", 127, "executable file not found in $PATH"},
			{"/nothing", 127, "no such file or directory"},
			{"/etc/passwd", 126, "permission denied"},
		} {
			r := f.gantry(f.run("--rm", "busybox", test.program)...)
			if r.code != test.code || !strings.Contains(r.err, test.says) {
				f.Errorf("%s: exit code %d, %s", test.program, r.code, r.err)
			}
		}
		id := f.detached("busybox", "sleep", "100")
		f.want("exit code of an exec", f.gantry("exec", id, "nothing-of-the-kind").code, 127)
		f.want("exit code of an exec", f.gantry("exec", id, "/etc/passwd").code, 126)
	})
}

// What a runtime refuses is told in its words.
func TestRefused(t *testing.T) {
	each(t, func(f *fixture) {
		r := f.gantry(f.run("--name", "refused", "--sysctl", "net.nothing.of_the_kind=1", "busybox", "true")...)
		if r.code == 0 || !strings.Contains(r.err, "runtime "+f.runtime+": ") || !strings.Contains(r.err, "of_the_kind") {
			f.Errorf("exit code %d, %s", r.code, r.err)
		}
		f.want("state", f.inspect("refused", ".State.Status"), "created")
	})
}

func TestUnknown(t *testing.T) {
	f := &fixture{T: t}
	r := f.gantry("run", "--rm", "--runtime", "nothing", "busybox", "true")
	if r.code != 125 || !strings.Contains(r.err, "unknown or invalid runtime name: nothing") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
	r = f.gantry("run", "--rm", "--runtime", "missing", "busybox", "true")
	if r.code == 0 || !strings.Contains(r.err, "cannot run the runtime missing: ") || !strings.Contains(r.err, "no such file") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
	f.want("exit code", f.gantry("run", "--rm", "--runtime", "gantry", "busybox", "true").code, 0)
	if info := f.ok("info", "--format", "{{json .Runtimes}}"); !strings.Contains(info, `"path":"/nothing/here"`) || !strings.Contains(info, `"gantry"`) {
		t.Errorf("info lists the runtimes %s", info)
	}
}

func TestMounts(t *testing.T) {
	each(t, func(f *fixture) {
		dir := f.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("host"), 0o644); err != nil {
			f.Fatal(err)
		}
		r := f.gantry(f.run("--rm", "--read-only", "-v", dir+":/rw", "-v", dir+":/ro:ro", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c",
			`cat /ro/file; echo new >/rw/new; echo x >/ro/x; echo x >/x; echo x >/scratch/x && echo -n " $(cat /scratch/x)"`)...)
		f.want("output", r.out, "host x")
		if strings.Count(r.err, "Read-only file system") != 2 {
			f.Errorf("it could write: %s", r.err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || string(b) != "new\n" {
			f.Errorf("the host reads %q (%v)", b, err)
		}
	})
}

func TestExec(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("-e", "A=b", "busybox", "sleep", "100")
		r := f.gantry("exec", "-u", "web", "-w", "/tmp", "-e", "C=d", id, "sh", "-c", "echo $A $C $(id -u) $(pwd); echo worse >&2; exit 3")
		f.want("output", r.out, "b d 33 /tmp")
		f.want("standard error", r.err, "worse")
		f.want("exit code", r.code, 3)
		f.want("lines of the input", f.fed("one\ntwo\n", "exec", "-i", id, "wc", "-l").out, "2")
		f.ok("exec", "-d", id, "sh", "-c", "echo done >/tmp/done")
		f.until("the detached exec is done", func() bool { return f.gantry("exec", id, "cat", "/tmp/done").out == "done" })
		f.want("exit code of a signal", f.gantry("exec", id, "sh", "-c", "kill -15 $$").code, 143)
		// The processes executed in a container are in its cgroup and end with it.
		if top := f.ok("top", id); !strings.Contains(top, "sleep 100") {
			f.Errorf("top shows %s", top)
		}
	})
}

func TestStop(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("busybox", "sh", "-c", `trap "echo bye; exit 3" TERM; echo ready; while :; do sleep 0.05; done`)
		f.until("it is ready", func() bool { return f.ok("logs", id) == "ready" })
		f.ok("stop", id)
		f.want("exit code", f.inspect(id, ".State.ExitCode"), "3")
		f.want("log", f.ok("logs", id), "ready\nbye")
		// The same container starts again, and is killed.
		f.ok("start", id)
		f.want("runtime", f.inspect(id, ".HostConfig.Runtime"), f.runtime)
		f.ok("kill", id)
		f.want("exit code", f.ok("wait", id), "137")
		f.ok("start", id)
		f.ok("restart", "-t", "0", id)
		f.want("state", f.inspect(id, ".State.Status"), "running")
		f.ok("rm", "-f", id)
	})
}

func TestResources(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("-m", "64m", "--pids-limit", "20", "busybox", "sh", "-c", "while :; do echo x; sleep 0.02; done")
		stats := f.ok("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", id)
		if !strings.Contains(stats, "/ 64MiB") || strings.HasSuffix(stats, " 0") {
			f.Errorf("stats shows %s", stats)
		}
		f.ok("update", "-m", "96m", "--memory-swap", "-1", id)
		if stats := f.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", id); !strings.Contains(stats, "/ 96MiB") {
			f.Errorf("stats shows %s after the update", stats)
		}
		f.ok("pause", id)
		f.want("state", f.inspect(id, ".State.Status"), "paused")
		lines := f.ok("logs", id)
		f.ok("stats", "--no-stream", id) // takes as long as 50 lines
		f.want("log of a paused container", f.ok("logs", id), lines)
		f.ok("unpause", id)
		f.until("it goes on", func() bool { return len(f.ok("logs", id)) > len(lines) })
		f.ok("exec", id, "true")
		f.ok("stop", "-t", "0", id)
	})
}

func TestOOM(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "tail /dev/zero")
		f.ok("wait", id)
		f.want("OOMKilled", f.inspect(id, ".State.OOMKilled"), "true")
	})
}

func TestFiles(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("busybox", "sleep", "100")
		f.ok("exec", id, "sh", "-c", "echo inside >/root/x")
		host := filepath.Join(f.TempDir(), "x")
		f.ok("cp", id+":/root/x", host)
		if b, err := os.ReadFile(host); err != nil || string(b) != "inside\n" {
			f.Errorf("cp copied %q (%v)", b, err)
		}
		f.ok("cp", host, id+":/root/y")
		f.want("a file copied into the container", f.ok("exec", id, "cat", "/root/y"), "inside")
		if diff := f.ok("diff", id); !strings.Contains(diff, "A /root/x") {
			f.Errorf("diff shows %s", diff)
		}
	})
}

// Many at once, so that the children of io are many too.
func TestTogether(t *testing.T) {
	each(t, func(f *fixture) {
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				r := f.gantry(f.run("--rm", "busybox", "sh", "-c", "echo "+strconv.Itoa(i)+"; exit "+strconv.Itoa(i))...)
				if r.code != i || r.out != strconv.Itoa(i) {
					f.Errorf("number %d: exit code %d, %q, %s", i, r.code, r.out, r.err)
				}
			})
		}
		group.Wait()
	})
}

// Two containers share what one of them has.
func TestJoin(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("--ipc", "shareable", "busybox", "sleep", "100")
		f.ok("exec", id, "sh", "-c", "echo shared >/dev/shm/x")
		r := f.gantry(f.run("--rm", "--network", "container:"+id, "--pid", "container:"+id, "--ipc", "container:"+id, "busybox",
			"sh", "-c", "cat /dev/shm/x; ip -4 addr show eth0 | grep -c inet; ps | grep -c 'sleep [1]00'")...)
		f.want("output", strings.Join(strings.Fields(r.out), " ")+r.err, "shared 1 1")
		r = f.gantry(f.run("--rm", "--network", "none", "busybox", "ip", "link")...)
		f.want("interfaces of none", strings.Count(r.out, "\n"), 1) // lo has two lines
		host, _ := os.Readlink("/proc/self/ns/net")
		f.want("the host's network", f.ok(f.run("--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net")...), host)
	})
}

// A daemon's death is not noticed.
func TestDaemonKilled(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("busybox", "sh", "-c", "i=0; while ! [ -e /go ]; do i=$((i+1)); echo $i; sleep 0.01; done; exit 7")
		f.killDaemon()
		f.want("state", f.inspect(id, ".State.Status"), "running")
		f.ok("exec", id, "touch", "/go")
		f.want("exit code", f.ok("wait", id), "7")
		for i, line := range strings.Split(f.ok("logs", id), "\n") {
			if line != strconv.Itoa(i+1) {
				f.Fatalf("line %d of the log is %s", i+1, line)
			}
		}
	})
}

// If io is killed the containers run on, are adopted, and end well.
func TestShimKilled(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("busybox", "sh", "-c", "while ! [ -e /go ]; do sleep 0.02; done; exit 7")
		f.killShim()
		f.until("it is adopted", func() bool { return f.gantry("exec", id, "touch", "/go").code == 0 })
		code := f.ok("wait", id)
		if code != "7" && code != "255" { // unknown, before Linux 6.15
			f.Errorf("exit code is %s", code)
		}
		f.ok("start", id)
		f.ok("rm", "-f", id)
	})
}

// An upgrade of io in place is not noticed either.
func TestUpgrade(t *testing.T) {
	each(t, func(f *fixture) {
		id := f.detached("busybox", "sh", "-c", "while ! [ -e /go ]; do sleep 0.02; done; echo last; exit 7")
		c, err := shared.Shim(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		defer c.Close()
		if err := c.Upgrade(f.Context(), filepath.Join(shared.Bin, "gantry-shim")); err != nil {
			f.Fatal(err)
		}
		f.ok("exec", id, "touch", "/go")
		f.want("exit code", f.ok("wait", id), "7")
		f.want("log", f.ok("logs", id), "last")
	})
}

// A part of an image of several layers is found in the bundle: runtimes cannot
// mount it themselves.
func TestPartOfAnImage(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the image is made with commit of the stock client, which is not installed")
	}
	f := &fixture{T: t}
	f.ok("run", "--name", "parts", "busybox", "sh", "-c", "mkdir /d; echo second >/d/file")
	if out, err := shared.Command(docker, "commit", "parts", "parts").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.ok("rm", "parts")
	t.Cleanup(func() { shared.Run("rmi", "parts") })
	each(t, func(f *fixture) {
		r := f.gantry(f.run("--rm", "--mount", "type=image,src=parts,dst=/m,image-subpath=d", "--mount", "type=image,src=parts,dst=/f,image-subpath=d/file",
			"busybox", "sh", "-c", "cat /m/file /f; touch /m/x || echo refused")...)
		f.want("what is there", r.out, "second\nsecond\nrefused")
	})
}
