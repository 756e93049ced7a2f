package ocirt

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestHooks runs one hook of each kind and looks at what it saw.
func TestHooks(t *testing.T) {
	c := newContainer(t, "cat /from-container-hook; cat /from-create")
	dir := t.TempDir()
	script := func(name, body string) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "{ " + body + "; } > " + filepath.Join(dir, name)}, Env: []string{"PATH=/usr/bin:/bin", "X=y"}}
	}
	c.Spec.Annotations = map[string]string{"a": "b"}
	c.Spec.Hooks = &specs.Hooks{
		Prestart:        []specs.Hook{script("prestart", "cat")},
		CreateRuntime:   []specs.Hook{script("createRuntime", "echo $X; readlink /proc/self/ns/mnt")},
		CreateContainer: []specs.Hook{script("createContainer", "hostname; readlink /proc/self/ns/mnt; test -e /usr/bin/busybox && echo sees the host; cat")},
		StartContainer: []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo $X $0 $(id -u) $(hostname) > /from-container-hook; grep CapEff /proc/self/status >> /from-container-hook; cat >> /from-container-hook", "name"},
			Env: []string{"X=inside", "PATH=/bin"}}},
	}
	c.Spec.Process.Args[2] = "cat /from-container-hook"
	out, code := run(t, c)
	lines := strings.SplitN(out, "\n", 3)
	if code != 0 || len(lines) != 3 || lines[0] != "inside name 0 box" || lines[1] != "CapEff:\t00000000a80425fb" || !strings.Contains(lines[2], `"status":"created"`) || !strings.Contains(lines[2], `"pid":1,`) {
		t.Errorf("startContainer: %q", out)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	mnt, _ := os.Readlink("/proc/self/ns/mnt")
	if s := read("prestart"); !strings.Contains(s, `"id":"`+c.ID+`"`) || !strings.Contains(s, `"annotations":{"a":"b"}`) || !strings.Contains(s, `"bundle":"`+c.Bundle) {
		t.Errorf("prestart saw %q", s)
	}
	if s := read("createRuntime"); s != "y\n"+mnt+"\n" {
		t.Errorf("createRuntime saw %q", s)
	}
	s := read("createContainer")
	if !strings.HasPrefix(s, "box\nmnt:") || strings.Contains(s, mnt) || !strings.Contains(s, "sees the host") || !strings.Contains(s, `"pid":1,`) {
		t.Errorf("createContainer saw %q", s)
	}
}

func TestHookErrors(t *testing.T) {
	one := 1
	for _, tc := range []struct {
		name string
		set  func(*specs.Hooks)
		want string
	}{
		{"prestart", func(h *specs.Hooks) { h.Prestart = []specs.Hook{{Path: "/bin/false"}} }, "hook /bin/false failed: exit status 1"},
		{"createContainer", func(h *specs.Hooks) {
			h.CreateContainer = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no; exit 7"}}}
		}, "hook /bin/sh failed: exit status 7: no"},
		{"createContainer missing", func(h *specs.Hooks) { h.CreateContainer = []specs.Hook{{Path: "/no/hook"}} }, "hook /no/hook failed: cannot execute /no/hook: no such file or directory"},
		{"startContainer", func(h *specs.Hooks) { h.StartContainer = []specs.Hook{{Path: "/bin/false"}} }, "hook /bin/false failed: exit status 1"},
		{"timeout", func(h *specs.Hooks) {
			h.CreateRuntime = []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &one}}
		}, "hook /bin/sleep failed: timed out after 1 s"},
		{"timeout in the container", func(h *specs.Hooks) {
			h.StartContainer = []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &one}}
		}, "hook /bin/sleep failed: timed out after 1 s"},
		{"relative", func(h *specs.Hooks) { h.CreateRuntime = []specs.Hook{{Path: "x"}} }, `the path of hook "x" is not absolute`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, "true")
			c.Spec.Hooks = &specs.Hooks{}
			tc.set(c.Spec.Hooks)
			_, _, err := tryRun(t, c)
			if err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

// A hook may leave a process behind that writes for ever: a start must not read
// for as long.
func TestHookOutputEnds(t *testing.T) {
	output, hook, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	defer hook.Close()
	if _, err := hook.WriteString("said"); err != nil {
		t.Fatal(err)
	}
	got := &repeater{to: hook}
	drained := make(chan struct{})
	go func() {
		(&hookIO{output: output, dst: got}).drain()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(20 * time.Second):
		hook.Close() // which ends it
		<-drained
		t.Error("it was read for as long as it was written")
	}
	if !strings.HasPrefix(got.text, "said") {
		t.Errorf("the hook said %q", got.text)
	}
}

// repeater is a writer whose every byte is written to a pipe again.
type repeater struct {
	to   *os.File
	text string
}

func (r *repeater) Write(p []byte) (int, error) {
	if len(r.text) < 100 {
		r.text += string(p)
	}
	_, _ = r.to.Write(p)
	return len(p), nil
}

func TestRunHooksPoststop(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	err := RunHooks(context.Background(), []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + out}}}, &specs.State{ID: "x", Status: specs.StateStopped})
	data, _ := os.ReadFile(out)
	if err != nil || !strings.Contains(string(data), `"status":"stopped"`) {
		t.Errorf("state %q, error %v", data, err)
	}
}

func TestSeccomp(t *testing.T) {
	deny := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}},
	}
	for _, nnp := range []bool{false, true} {
		c := newContainer(t, "mkdir /x 2>&1; grep Seccomp: /proc/self/status")
		c.Spec.Linux.Seccomp = deny
		c.Spec.Process.NoNewPrivileges = nnp
		expect(t, c, "mkdir: can't create directory '/x': Operation not permitted\nSeccomp:\t2")
	}
	t.Run("exec", func(t *testing.T) {
		c := newContainer(t, "")
		c.Spec.Linux.Seccomp = deny
		p := background(t, c)
		proc := *c.Spec.Process
		proc.Args = []string{"mkdir", "/x"}
		if out, _, err := execIn(t, c, p, &proc); err != nil || !strings.Contains(out, "Operation not permitted") {
			t.Errorf("output %q, error %v", out, err)
		}
	})
}

// TestSeccompListener is an agent that answers mkdir with an errno of its own.
func TestSeccompListener(t *testing.T) {
	for _, nnp := range []bool{false, true} {
		c := newContainer(t, "mkdir /x 2>&1")
		path := filepath.Join(t.TempDir(), "agent")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c.Spec.Process.NoNewPrivileges = nnp
		c.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "meta",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
		state := make(chan string, 1)
		go func() { state <- agent(l) }()
		out, _ := run(t, c)
		if s := <-state; !strings.Contains(s, `"metadata":"meta"`) || !strings.Contains(s, `"fds":["seccompFd"]`) || !strings.Contains(s, c.ID) {
			t.Errorf("the agent got %s", s)
		}
		if !strings.Contains(out, "No anode") && !strings.Contains(out, "Level 2 halted") && !strings.Contains(out, "EL2HLT") && !strings.Contains(out, "error") {
			t.Errorf("output %q", out)
		}
	}
}

// agent accepts one listener and answers one notification with EL2HLT.
func agent(l *net.UnixListener) string {
	_ = l.SetDeadline(time.Now().Add(5 * time.Second))
	conn, err := l.AcceptUnix()
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	buf, oob := make([]byte, 65536), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return err.Error()
	}
	msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
	fds, _ := unix.ParseUnixRights(&msgs[0])
	defer unix.Close(fds[0])
	var req [80]byte // struct seccomp_notif
	if err := ioctl(fds[0], 0xc0502100, &req); err != nil {
		return err.Error()
	}
	var resp [80]byte // struct seccomp_notif_resp is 24 bytes: id, val, error, flags
	copy(resp[:8], req[:8])
	errno := -int32(unix.EL2HLT)
	resp[16], resp[17], resp[18], resp[19] = byte(errno), byte(errno>>8), byte(errno>>16), byte(errno>>24)
	if err := ioctl(fds[0], 0xc0182101, &resp); err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

// TestCgroupFailure: what Start made goes when it fails.
func TestStartErrorsAreTyped(t *testing.T) {
	c := newContainer(t, "")
	c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/etc/passwd/x", Type: "tmpfs", Source: "tmpfs"})
	_, _, err := tryRun(t, c)
	var step *StepError
	if !errors.As(err, &step) || step.Errno != unix.ENOTDIR || step.Step != "mount tmpfs on /etc/passwd/x" {
		t.Errorf("error %#v", err)
	}
}
