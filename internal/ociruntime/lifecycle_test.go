package ociruntime

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt"
)

func TestLifecycle(t *testing.T) {
	b := newBench(t, "sh", "-c", "echo started; exec sleep 1000")
	out := b.file("out")
	f, err := os.Create(out.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pidFile := b.file("pid")
	b.fails(1, "does not exist", "state", "c")
	create := b.command("create", "--bundle", b.bundle, "--pid-file", pidFile.path, "c")
	create.Stdout = f
	if r := b.do(create); r.code != 0 {
		t.Fatal(r.stderr)
	}
	s := b.state("c")
	if s.Status != "created" || s.Pid == 0 || s.Bundle != b.bundle || s.ID != "c" || s.Version != specs.Version {
		t.Errorf("state %+v", s)
	}
	if got := pidFile.lines(); !slices.Equal(got, []string{strconv.Itoa(s.Pid)}) {
		t.Errorf("PID file has %v, want %d", got, s.Pid)
	}
	if got := out.lines(); len(got) > 0 {
		t.Errorf("the program ran before start: %v", got)
	}
	b.fails(1, "container with id exists", "create", "c")
	b.fails(1, "not stopped", "delete", "c")
	// Changes of the bundle must not count any more.
	b.spec.Process.Args = []string{"true"}
	b.write()
	b.ok("start", "c")
	b.wantStatus("c", "running")
	b.eventually("the program runs", func() bool { return slices.Equal(out.lines(), []string{"started"}) })
	b.fails(1, "it is running", "start", "c")
	b.fails(1, "not stopped", "delete", "c")
	if got := strings.Fields(b.ok("list", "-q")); !slices.Equal(got, []string{"c"}) {
		t.Errorf("list has %v", got)
	}
	b.ok("kill", "c", "KILL")
	b.stopped("c")
	b.fails(1, "not running", "kill", "c")
	b.ok("kill", "--all", "c", "9")
	b.fails(1, "it is stopped", "start", "c")
	b.ok("delete", "c")
	b.fails(1, "does not exist", "delete", "c")
	b.ok("delete", "--force", "c")
}

func TestRunExitCodes(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want int
	}{
		{"its own", []string{"sh", "-c", "exit 7"}, 7},
		{"signal", []string{"sh", "-c", "kill -9 $$"}, 137},
		{"not found", []string{"no-such-program"}, 127},
		{"not executable", []string{"/tmp"}, 126},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, tc.args...)
			if tc.name == "signal" { // as the first process of a PID namespace it would survive
				b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
				b.write()
			}
			if r := b.oci("run", "c"); r.code != tc.want {
				t.Errorf("exit code %d, want %d: %s", r.code, tc.want, r.stderr)
			}
			b.fails(1, "does not exist", "state", "c")
		})
	}
}

// What cannot be executed is refused by create where one can see it, and
// otherwise told to the container's stderr: nobody waits for the process then.
func TestStartOfWhatCannotBeExecuted(t *testing.T) {
	b := newBench(t, "/tmp")
	b.fails(1, `exec: "/tmp": is a directory`, "create", "c")
	// A directory of the right name does not end the search.
	if err := os.Mkdir(filepath.Join(b.bundle, "rootfs", "tmp", "true"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Env = []string{"PATH=/tmp:/bin"}
	b.spec.Process.Args = []string{"true"}
	b.write()
	b.ok("create", "c")
	b.ok("delete", "-f", "c")
	for name, tc := range map[string]struct {
		content, late, want string
		code                int
	}{
		"garbage":        {"\x7fnothing", "", "exec /tmp/p: exec format error (it is for another kind of processor, or a script without #!)", 126},
		"no interpreter": {"#!/no/such/one\n", "", "exec /tmp/p: no such file or directory (its interpreter or loader is missing)", 127},
		"gone":           {"#!/bin/sh\n", "gone", `exec: "/tmp/p": stat /tmp/p: no such file or directory`, 127},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "/tmp/p")
			path := filepath.Join(b.bundle, "rootfs", "tmp", "p")
			if err := os.WriteFile(path, []byte(tc.content), 0o755); err != nil {
				t.Fatal(err)
			}
			// As the child of a subreaper that this test is, its exit code can be seen.
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
			r := b.oci("create", "c")
			if r.code != 0 {
				t.Fatal(r.stderr)
			}
			stderr := b.stderr
			pid := b.state("c").Pid
			if tc.late != "" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			b.ok("start", "c")
			var status unix.WaitStatus
			if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
				t.Fatal(err)
			}
			if said, _ := os.ReadFile(stderr); string(said) != tc.want+"\n" || status.ExitStatus() != tc.code {
				t.Errorf("exit code %d and %q, want %d and %q", status.ExitStatus(), said, tc.code, tc.want)
			}
		})
	}
}

// A container may be created without a process; then start has to fail, and the
// container is over (runtime.md).
func TestNoProcess(t *testing.T) {
	b := newBench(t)
	b.spec.Process = nil
	b.write()
	b.fails(1, "has no process", "run", "c")
	b.ok("create", "c")
	b.wantStatus("c", "created")
	b.fails(255, "describe the new one with --process", "exec", "c", "true")
	b.fails(1, "cannot start container c: its configuration has no process", "start", "c")
	b.stopped("c")
	b.ok("delete", "c")
}

// Without SELinux a mount label is a warning: nothing reads it.
func TestMountLabelWithoutSELinux(t *testing.T) {
	if ocirt.SELinux() {
		t.Skip("this kernel has SELinux")
	}
	b := newBench(t, "true")
	b.spec.Linux.MountLabel = "system_u:object_r:container_file_t:s0:c1,c2"
	b.write()
	if r := b.oci("run", "c"); r.code != 0 || !strings.Contains(r.stderr, "has no effect") {
		t.Errorf("%+v", r)
	}
}

func TestRunStdio(t *testing.T) {
	b := newBench(t, "sh", "-c", "cat; echo err >&2")
	cmd := b.command("run", "c")
	cmd.Stdin = strings.NewReader("from stdin\n")
	if r := b.do(cmd); r.code != 0 || r.stdout != "from stdin\n" || r.stderr != "err\n" {
		t.Errorf("%+v", r)
	}
}

func TestRunForwardsSignals(t *testing.T) {
	b := newBench(t, "sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done")
	cmd := b.command("run", "c")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 42 {
		t.Errorf("exit code %d, want 42", code)
	}
}

func TestRunDetached(t *testing.T) {
	b := newBench(t, "sleep", "1000")
	b.ok("run", "--detach", "--bundle", b.bundle, "c")
	b.wantStatus("c", "running")
	b.ok("delete", "-f", "c")
}

func TestRunKeeps(t *testing.T) {
	b := newBench(t, "true")
	b.ok("run", "--keep", "c")
	b.wantStatus("c", "stopped")
	b.ok("delete", "c")
}

// Hooks of all kinds run, in order, and the state they get is right.
func TestHooks(t *testing.T) {
	b := newBench(t, "true")
	log := b.file("log")
	inside := filepath.Join(b.bundle, "rootfs", "tmp", "log")
	hook := func(name, where string) []specs.Hook {
		script := fmt.Sprintf(`read -r s; case $s in *'"status":"'*) s=${s#*'"status":"'}; echo %s:${s%%%%'"'*} >> %s;; esac`, name, where)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}
	}
	b.spec.Root.Readonly = false
	b.spec.Hooks = &specs.Hooks{
		Prestart:        hook("prestart", log.path), //nolint:staticcheck // deprecated and in use
		CreateRuntime:   hook("createRuntime", log.path),
		CreateContainer: hook("createContainer", log.path),
		StartContainer:  hook("startContainer", "/tmp/log"),
		Poststart:       hook("poststart", log.path),
		Poststop:        hook("poststop", log.path),
	}
	b.write()
	b.ok("create", "c")
	// The specification leaves open which of the two holds while create's hooks run.
	status := ":creating"
	if got := log.lines(); len(got) > 0 && strings.HasSuffix(got[0], ":created") {
		status = ":created"
	}
	want := []string{"prestart" + status, "createRuntime" + status, "createContainer" + status}
	if got := log.lines(); !slices.Equal(got, want) {
		t.Errorf("after create %v, want %v", got, want)
	}
	b.ok("start", "c")
	want = append(want, "poststart:running")
	if got := log.lines(); !slices.Equal(got, want) {
		t.Errorf("after start %v, want %v", got, want)
	}
	if got := (hostFile{t, inside}).lines(); !slices.Equal(got, []string{"startContainer:created"}) {
		t.Errorf("startContainer hook: %v", got)
	}
	b.stopped("c")
	b.ok("delete", "c")
	want = append(want, "poststop:stopped")
	if got := log.lines(); !slices.Equal(got, want) {
		t.Errorf("after delete %v, want %v", got, want)
	}
}

func TestFailingHooks(t *testing.T) {
	bad := []specs.Hook{{Path: "/bin/false"}}
	b := newBench(t, "sleep", "1000")
	log := b.file("log")
	poststop := []specs.Hook{{Path: "/bin/false"}, {Path: "/bin/sh", Args: []string{"sh", "-c", "echo poststop >> " + log.path}}}
	b.spec.Hooks = &specs.Hooks{CreateRuntime: bad, Poststop: poststop}
	b.write()
	b.fails(1, "hook /bin/false failed", "create", "c")
	b.fails(1, "does not exist", "state", "c")
	if got := log.lines(); !slices.Equal(got, []string{"poststop"}) {
		t.Errorf("the last hooks: %v", got)
	}
	b.spec.Hooks = &specs.Hooks{Poststart: bad}
	b.write()
	b.ok("create", "c")
	b.fails(1, "hook /bin/false failed", "start", "c")
	b.stopped("c")
	b.ok("delete", "c")
	// Before 1.3 it was a warning, and the others ran.
	log2 := b.file("log2")
	b.spec.Version = "1.0.2"
	b.spec.Hooks.Poststart = append(b.spec.Hooks.Poststart, specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo second >> " + log2.path}})
	b.write()
	b.ok("create", "d")
	if r := b.oci("start", "d"); r.code != 0 || !strings.Contains(r.stderr, "warning: hook /bin/false failed") {
		t.Errorf("%+v", r)
	}
	b.wantStatus("d", "running")
	if got := log2.lines(); !slices.Equal(got, []string{"second"}) {
		t.Errorf("the hook after the failed one: %v", got)
	}
}

// A terminal goes to who listens at the console socket.
func TestConsoleSocket(t *testing.T) {
	b := newBench(t, "sh", "-c", "tty; read -r x; echo got $x")
	b.spec.Process.Terminal = true
	b.write()
	b.fails(1, "--console-socket", "create", "c")
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.ok("create", "--console-socket", path, "c")
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatal(msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	b.ok("start", "c")
	in := bufio.NewReader(master)
	line, err := in.ReadString('\n')
	if strings.TrimSpace(line) != "/dev/pts/0" && strings.TrimSpace(line) != "/dev/console" {
		t.Errorf("tty says %q, %v", line, err)
	}
	if _, err := master.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := in.ReadString('\n')
		if strings.Contains(line, "got hello") {
			break
		}
		if err != nil {
			t.Fatal(line, err)
		}
	}
	b.stopped("c")
}

func TestPreserveFDs(t *testing.T) {
	b := newBench(t, "sh", "-c", "cat <&3; ls /proc/self/fd | tr '\\n' ' '")
	if err := os.Symlink("busybox", filepath.Join(b.bundle, "rootfs", "bin", "tr")); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("through 3\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	cmd := b.command("run", "--preserve-fds", "1", "c")
	cmd.ExtraFiles = []*os.File{r}
	if res := b.do(cmd); res.code != 0 || !strings.HasPrefix(res.stdout, "through 3\n") {
		t.Errorf("%+v", res)
	}
	b.fails(1, "not open", "run", "--preserve-fds", "90", "c")
}

func TestPauseUpdateEventsPs(t *testing.T) {
	b := newBench(t, "sleep", "1000")
	b.ok("create", "c")
	b.ok("start", "c")
	b.ok("pause", "c")
	b.wantStatus("c", "paused")
	b.fails(1, "cannot pause", "pause", "c")
	b.fails(255, "paused container", "exec", "c", "true")
	b.ok("resume", "c")
	b.fails(1, "not paused", "resume", "c")
	var e struct {
		Type, ID string
		Data     struct {
			Pids   struct{ Current, Limit uint64 }
			Memory struct{ Usage struct{ Limit uint64 } }
		}
	}
	b.ok("update", "--pids-limit", "77", "--memory", "64m", "c")
	if err := json.Unmarshal([]byte(b.ok("events", "--stats", "c")), &e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "stats" || e.ID != "c" || e.Data.Pids.Current != 1 || e.Data.Pids.Limit != 77 || e.Data.Memory.Usage.Limit != 64<<20 {
		t.Errorf("statistics %+v", e)
	}
	cmd := b.command("update", "--resources", "-", "c")
	cmd.Stdin = strings.NewReader(`{"pids":{"limit":55}}`)
	if r := b.do(cmd); r.code != 0 {
		t.Error(r.stderr)
	}
	if err := json.Unmarshal([]byte(b.ok("events", "--stats", "c")), &e); err != nil || e.Data.Pids.Limit != 55 {
		t.Errorf("statistics %+v, %v", e, err)
	}
	b.fails(1, "invalid --memory", "update", "--memory", "lots", "c")
	var pids []int
	if err := json.Unmarshal([]byte(b.ok("ps", "--format", "json", "c")), &pids); err != nil || !slices.Equal(pids, []int{b.state("c").Pid}) {
		t.Errorf("ps says %v, %v", pids, err)
	}
	if out := b.ok("ps", "c"); !strings.Contains(out, "sleep 1000") || len(strings.Split(strings.TrimSpace(out), "\n")) != 2 {
		t.Errorf("ps says %q", out)
	}
	// A frozen container dies of SIGKILL all the same.
	b.ok("pause", "c")
	b.ok("kill", "c", "SIGKILL")
	b.stopped("c")
}

func TestEventsUntilTheEnd(t *testing.T) {
	b := newBench(t, "sleep", "1000")
	b.ok("run", "-d", "c")
	cmd := b.command("events", "--interval", "20ms", "c")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	if line, err := in.ReadString('\n'); !strings.Contains(line, `"stats"`) {
		t.Error(line, err)
	}
	b.ok("kill", "c", "KILL")
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := in.ReadString('\n'); err != nil {
				break
			}
		}
		done <- cmd.Wait()
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("events outlived the container")
	}
}

func TestConcurrentCreate(t *testing.T) {
	b := newBench(t, "sleep", "1000")
	codes := make(chan int, 4)
	for range 4 {
		go func() {
			cmd := b.command("create", "c")
			_ = cmd.Run()
			codes <- cmd.ProcessState.ExitCode()
		}()
	}
	won := 0
	for range 4 {
		if <-codes == 0 {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d of 4 created the same container", won)
	}
	b.wantStatus("c", "created")
}
