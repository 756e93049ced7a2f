package ocirt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestProcess(t *testing.T) {
	umask := uint32(0o027)
	oom := 500
	cases := []struct {
		name, script string
		set          func(*Container)
		want         string
	}{
		{"user", "id -u; id -g; id -G; pwd; echo $HOME", func(c *Container) {
			c.Spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 7, 8}}
			c.Spec.Process.Cwd = "/home/joe"
		}, "1000\n1000\n1000 7 8\n/home/joe\n/home/joe"},
		{"user has no capabilities", "grep CapEff /proc/self/status", func(c *Container) {
			c.Spec.Process.User = specs.User{UID: 1000}
		}, "CapEff:\t0000000000000000"},
		{"ambient capabilities", "grep -e CapEff -e CapAmb /proc/self/status", func(c *Container) {
			c.Spec.Process.User = specs.User{UID: 1000}
			l := []string{"CAP_NET_BIND_SERVICE"}
			c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: l, Effective: l, Permitted: l, Inheritable: l, Ambient: l}
		}, "CapEff:\t0000000000000400\nCapAmb:\t0000000000000400"},
		{"no capabilities at all", "grep -e CapEff -e CapBnd /proc/self/status", func(c *Container) {
			c.Spec.Process.Capabilities = nil
		}, "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000"},
		{"unknown capabilities are ignored", "grep CapEff /proc/self/status", func(c *Container) {
			l := []string{"CAP_WALK_ON_WATER", "CAP_KILL"}
			c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: l, Effective: l, Permitted: l}
		}, "CapEff:\t0000000000000020"},
		{"umask", "umask", func(c *Container) { c.Spec.Process.User.Umask = &umask }, "0027"},
		{"stdout can be opened by a user", "echo x > /dev/stdout", func(c *Container) { c.Spec.Process.User.UID = 1000 }, "x"},
		{"rlimits", "ulimit -n; ulimit -Hn; ulimit -c", func(c *Container) {
			c.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 17, Hard: 23}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
		}, "17\n23\n0"},
		{"open files as this program was started with", "ulimit -n", nil, startedWith()},
		{"oom_score_adj", "cat /proc/self/oom_score_adj", func(c *Container) { c.Spec.Process.OOMScoreAdj = &oom }, "500"},
		{"no_new_privs", "grep NoNewPrivs /proc/self/status", func(c *Container) { c.Spec.Process.NoNewPrivileges = true }, "NoNewPrivs:\t1"},
		{"working directory is made", "pwd", func(c *Container) { c.Spec.Process.Cwd = "/a/b/c" }, "/a/b/c"},
		{"working directory of somebody else", "pwd", func(c *Container) {
			c.Spec.Process.Cwd = "/root"
			c.Spec.Process.User.UID = 1000
			_ = os.Chmod(filepath.Join(c.Bundle, "rootfs/root"), 0o700)
		}, "/root"},
		{"nice", "cut -d' ' -f19 /proc/self/stat", func(c *Container) {
			c.Spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
		}, "7"},
		{"personality", "busybox uname -m", func(c *Container) {
			c.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		}, map[string]string{"x86_64": "i686", "aarch64": "armv8l"}[machine()]},
		{"I/O priority", "busybox ionice -p $$", func(c *Container) {
			c.Spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}, "best-effort: prio 6"},
		{"domain name", "cat /proc/sys/kernel/domainname", func(c *Container) { c.Spec.Domainname = "example.test" }, "example.test"},
		{"environment", "echo $A; echo $PATH", func(c *Container) {
			c.Spec.Process.Env = []string{"A=b c", "PATH=/bin"}
		}, "b c\n/bin"},
		{"duplicated streams", "echo out; echo err >&2", nil, "out\nerr"},
		{"name of the program", "cat /proc/1/comm; true", nil, "sh"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, tc.script)
			if tc.set != nil {
				tc.set(c)
			}
			expect(t, c, tc.want)
		})
	}
}

// startedWith asks a child of the Go runtime for its limit on open files.
func startedWith() string {
	out, _ := exec.Command("sh", "-c", "ulimit -n").Output()
	return string(out)
}

func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Machine[:])
}

func TestExecErrors(t *testing.T) {
	cases := []struct {
		name  string
		arg   string
		class error
		want  string
	}{
		{"not in PATH", "nothing-of-the-kind", ErrNotFound, `exec: "nothing-of-the-kind": executable file not found in $PATH`},
		{"no such file", "/nothing", ErrNotFound, `exec: "/nothing": stat /nothing: no such file or directory`},
		{"not executable", "/etc/passwd", ErrNotExecutable, `exec: "/etc/passwd": permission denied`},
		{"not executable in PATH", "plain", ErrNotExecutable, `exec: "plain": permission denied`},
		{"directory", "/etc", ErrNotExecutable, `exec: "/etc": is a directory`},
		{"format", "/bin/garbage", ErrNotExecutable, `exec /bin/garbage: exec format error (it is for another kind of processor, or a script without #!)`},
		{"interpreter", "/bin/script", ErrNotFound, `exec /bin/script: no such file or directory (its interpreter or loader is missing)`},
		{"below a file", "/etc/passwd/x", ErrNotFound, `exec: "/etc/passwd/x": stat /etc/passwd/x: no such file or directory`},
	}
	for _, fifo := range []bool{false, true} {
		for _, tc := range cases {
			t.Run(tc.name, func(t *testing.T) {
				c := newContainer(t, "")
				root := filepath.Join(c.Bundle, "rootfs")
				writeFile(t, filepath.Join(root, "bin/plain"), "x", 0o644)
				writeFile(t, filepath.Join(root, "bin/garbage"), "\x7fELF garbage", 0o755)
				writeFile(t, filepath.Join(root, "bin/script"), "#!/no/interpreter\n", 0o755)
				c.Spec.Process.Args = []string{tc.arg}
				if fifo {
					if tc.name == "format" || tc.name == "interpreter" || tc.name == "directory" {
						t.Skip("only execve finds that out")
					}
					c.StartFIFO = filepath.Join(c.Bundle, "fifo")
					if err := unix.Mkfifo(c.StartFIFO, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				_, _, err := tryRun(t, c)
				var e *ExecError
				if !errors.As(err, &e) || !errors.Is(err, tc.class) || err.Error() != tc.want {
					t.Errorf("error %v, want %s", err, tc.want)
				}
			})
		}
	}
}

// TestStartFIFO is the split of the OCI command line.
func TestStartFIFO(t *testing.T) {
	c := newContainer(t, "echo started")
	c.StartFIFO = filepath.Join(c.Bundle, "fifo")
	if err := unix.Mkfifo(c.StartFIFO, 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout = w
	p, err := Start(context.Background(), c)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(filepath.Join("/proc", itoa(int64(p.Pid)), "comm")); strings.TrimSpace(string(data)) == "sh" {
		t.Error("the program runs before Release")
	}
	if err := Release(c.StartFIFO); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(r)
	if wait(t, p).ExitStatus() != 0 || string(out) != "started\n" {
		t.Errorf("output %q", out)
	}
	if err := Release(c.StartFIFO); err == nil {
		t.Error("a container was released twice")
	}
	if err := p.Cgroup.Delete(); err != nil {
		t.Error(err)
	}
}

func TestTerminal(t *testing.T) {
	cases := []struct{ name, script, want string }{
		{"is one", "tty; test -t 0 && test -t 1 && test -t 2 && echo yes", "/dev/pts/0\nyes"},
		{"size", "stty size", "33 99"},
		{"console", "stat -c %t:%T /dev/console; grep -c ' /dev/console ' /proc/mounts; echo hello > /dev/console", "88:0\n1\nhello"},
		{"controlling", "echo x > /dev/tty", "x"},
		{"owner", "stat -c %u /dev/pts/0", "1000"},
		{"descriptors", "ls /proc/self/fd", "0\n1\n2\n3"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, tc.script)
			c.Spec.Process.Terminal = true
			c.Spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
			if tc.name == "owner" {
				c.Spec.Process.User.UID = 1000
			}
			out, code := run(t, c)
			if got := strings.TrimSpace(strings.NewReplacer("\r", "", "  ", "\n").Replace(out)); code != 0 || strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(tc.want), " ") {
				t.Errorf("exit status %d, output %q, want %q", code, got, tc.want)
			}
		})
	}
}

// background starts a container that sleeps until the test ends.
func background(t *testing.T, c *Container) *Process {
	t.Helper()
	c.Spec.Process.Args = []string{"sleep", "1000"}
	p, err := Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if p.Console != nil {
		t.Cleanup(func() { p.Console.Close() })
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(int(p.PidFD.Fd()), unix.SIGKILL, nil, 0)
		wait(t, p)
		if err := p.Cgroup.Delete(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// execIn runs a further process and returns its output.
func execIn(t *testing.T, c *Container, p *Process, proc *specs.Process) (string, int, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e := &Exec{Pid: p.Pid, StartTime: p.StartTime, ID: c.ID, Spec: c.Spec, Process: proc, Cgroup: p.Cgroup, Stdout: w, Stderr: w, NoPivot: c.NoPivot}
	x, err := e.Start(context.Background())
	w.Close()
	if err != nil {
		return "", -1, err
	}
	var out bytes.Buffer
	if x.Console != nil {
		defer x.Console.Close()
		_, _ = io.Copy(&out, x.Console)
	} else {
		_, _ = io.Copy(&out, r)
	}
	return out.String(), wait(t, x).ExitStatus(), nil
}

func TestExec(t *testing.T) {
	c := newContainer(t, "")
	p := background(t, c)
	cases := []struct {
		name, script string
		set          func(*specs.Process)
		want         string
	}{
		{"same namespaces", "for n in pid mnt uts ipc net cgroup; do test $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) || echo $n differs; done; hostname", nil, "box"},
		{"sees the first process", "cat /proc/1/comm", nil, "sleep"},
		{"same cgroup", "test \"$(cat /proc/1/cgroup)\" = \"$(cat /proc/self/cgroup)\" && echo same", nil, "same"},
		{"capabilities", "grep Cap /proc/self/status | grep -v a80425fb | grep -v 0000000000000000", nil, ""},
		{"user", "id -u; pwd; echo $HOME", func(p *specs.Process) { p.User.UID = 1000; p.Cwd = "/home/joe" }, "1000\n/home/joe\n/home/joe"},
		{"terminal", "tty; test -t 2 && echo yes; stty size", func(p *specs.Process) {
			p.Terminal = true
			p.ConsoleSize = &specs.Box{Height: 11, Width: 22}
		}, "/dev/pts/0\nyes\n11 22"},
		{"descriptors", "ls /proc/self/fd", nil, "0\n1\n2\n3"},
		{"no_new_privs", "grep NoNewPrivs /proc/self/status", func(p *specs.Process) { p.NoNewPrivileges = true }, "NoNewPrivs:\t1"},
		{"affinity", "grep Cpus_allowed_list /proc/self/status", func(p *specs.Process) {
			p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
		}, "Cpus_allowed_list:\t0"},
		{"session", "test $(cut -d' ' -f6 /proc/$$/stat) = $$ && echo leader", nil, "leader"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			proc := *c.Spec.Process
			proc.Args = []string{"sh", "-c", tc.script}
			if tc.set != nil {
				tc.set(&proc)
			}
			out, _, err := execIn(t, c, p, &proc)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(strings.ReplaceAll(out, "\r", "")); got != tc.want {
				t.Errorf("output %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("not found", func(t *testing.T) {
		proc := *c.Spec.Process
		proc.Args = []string{"nope"}
		if _, _, err := execIn(t, c, p, &proc); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("reused pid", func(t *testing.T) {
		e := &Exec{Pid: p.Pid, StartTime: p.StartTime + 1, Spec: c.Spec, Process: c.Spec.Process}
		if _, err := e.Start(context.Background()); err == nil {
			t.Error("executed in another process")
		}
	})
}

// TestCancel: a start that is given up leaves nothing.
func TestCancel(t *testing.T) {
	c := newContainer(t, "")
	c.Spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}}}}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestRefusals(t *testing.T) {
	cases := []struct {
		name string
		set  func(*specs.Spec)
		want string
	}{
		{"no arguments", func(s *specs.Spec) { s.Process.Args = nil }, "the process has no arguments: there is nothing to execute"},
		{"relative directory", func(s *specs.Spec) { s.Process.Cwd = "x" }, `working directory "x" is not an absolute path`},
		{"host sysctl", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, `sysctl "kernel.panic" is not in a separate kernel namespace`},
		{"mount in /proc", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/self/attr", Type: "tmpfs"})
		}, `"/proc/self/attr" cannot be mounted because it is inside /proc`},
		{"missing source", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such/thing"})
		}, "cannot mount /no/such/thing on /x: no such file or directory"},
		{"unknown file system", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"nonsense=1"}})
		}, "cannot mount tmpfs on /x: invalid argument"},
		{"a directory on a file", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/passwd", Source: "/tmp", Options: []string{"bind"}})
		}, "cannot mount /tmp on /etc/passwd: invalid argument (is one of them a directory and the other a file?)"},
		{"no name", func(s *specs.Spec) { s.Process.Args = []string{""} }, `exec: "": executable file not found in $PATH`},
		{"AppArmor", func(s *specs.Spec) { s.Process.ApparmorProfile = "docker-default" }, `cannot apply AppArmor profile "docker-default": this kernel has no AppArmor`},
		{"SELinux", func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c" }, `cannot apply SELinux label "a:b:c": this kernel has no SELinux, or it is off`},
		{"rlimit", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }, `unknown rlimit "RLIMIT_X"`},
		{"wrong namespace", func(s *specs.Spec) {
			s.Linux.Namespaces[4].Path = "/proc/self/ns/uts"
		}, "cannot join network namespace: /proc/self/ns/uts is not one"},
		{"hook", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo bad >&2; exit 3"}}}}
		}, "hook /bin/sh failed: exit status 3: bad"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, "true")
			tc.set(c.Spec)
			_, _, err := tryRun(t, c)
			if err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}
