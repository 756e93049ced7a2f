package shim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// The test binary is a gantry-shim too, so that tests need no build.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "io" || os.Args[1] == "net" || os.Args[1] == "version") {
		if b, err := os.ReadFile(filepath.Join(os.Args[len(os.Args)-1], stallFile)); err == nil {
			stallLimit, _ = time.ParseDuration(string(b))
		}
		if b, err := os.ReadFile(filepath.Join(os.Args[len(os.Args)-1], spareLifeFile)); err == nil {
			spareLife, _ = time.ParseDuration(string(b))
		}
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == "daemon" {
		os.Exit(mortalDaemon(os.Args[2]))
	}
	os.Exit(m.Run())
}

// stallFile, in the exec root, says how long a shim of a test lets a client stall.
const stallFile = "stall-limit"

// spareLifeFile says how long it keeps spare cgroups.
const spareLifeFile = "spare-life"

// rounds is how often a test repeats what has to work every time: as often as
// GANTRY_SOAK says, which script/soak sets and which reads the number.
func rounds(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("GANTRY_SOAK"), "10"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rounds", n)
	return n
}

// shimTest is a shim of its own with its own root and cgroups.
type shimTest struct {
	testing.TB
	*Client
	root   string // exec root
	rootfs string
	binary string
	cgroup string
	events chan Event
	early  []Event // came while another was awaited
	n      int
}

func newTest(t testing.TB) *shimTest {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox-static is not installed")
	}
	dir := t.TempDir()
	s := &shimTest{TB: t, root: filepath.Join(dir, "run"), rootfs: filepath.Join(dir, "rootfs")}
	s.cgroup = fmt.Sprintf("/gantry-shim-test-%d-%s", os.Getpid(), strings.ToLower(filepath.Base(filepath.Dir(dir))))
	s.makeRootfs(busybox)
	// The exec root is a tmpfs where it matters.
	if err := os.Mkdir(s.root, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", s.root, "tmpfs", 0, "size=64m"); err == nil {
		t.Cleanup(func() { unix.Unmount(s.root, unix.MNT_DETACH) })
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.binary = self
	if s.Client, err = Ensure(t.Context(), s.root, s.binary); err != nil {
		b, _ := os.ReadFile(logPath(s.root))
		t.Fatalf("%v\n%s", err, b)
	}
	t.Cleanup(s.tearDown)
	return s
}

func (s *shimTest) makeRootfs(busybox string) {
	for _, d := range []string{"bin", "proc", "tmp", "dev"} {
		if err := os.MkdirAll(filepath.Join(s.rootfs, d), 0o755); err != nil {
			s.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.rootfs, "bin/busybox"), b, 0o755); err != nil {
		s.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "sleep", "echo", "seq", "stty", "kill", "dd", "yes", "head", "true", "usleep"} {
		os.Symlink("busybox", filepath.Join(s.rootfs, "bin", name))
	}
}

func (s *shimTest) tearDown() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if b, _ := os.ReadFile(logPath(s.root)); bytes.Contains(b, []byte("DATA RACE")) || bytes.Contains(b, []byte("panic")) {
		s.Errorf("the shim failed badly")
	}
	defer func() {
		if s.Failed() {
			if b, err := os.ReadFile(logPath(s.root)); err == nil {
				s.Logf("the shim's log:\n%s", b)
			}
		}
	}()
	list, err := s.List(ctx)
	if err != nil {
		s.Errorf("cannot list at the end: %v", err)
	}
	for _, st := range list {
		if st.Running {
			s.Signal(ctx, st.ID, st.ExecID, syscall.SIGKILL, true)
		}
	}
	for {
		err := s.Shutdown(ctx)
		if err == nil || !strings.Contains(err.Error(), "is running") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if left := s.spareDirs(); len(left) > 0 {
		s.Errorf("spare cgroups are left: %v", left)
	}
	if err := cgroup.New(s.cgroup).Delete(); err != nil {
		s.Errorf("a cgroup is left: %v", err)
	}
	for _, file := range cgroup.New(CgroupName(s.root)).ProcsFiles() {
		if _, err := os.Stat(file); err == nil {
			s.Errorf("the shim's cgroup is left: %s", file)
		}
	}
}

func (s *shimTest) spec(args ...string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: s.rootfs},
		Process: &specs.Process{Args: args, Env: []string{"PATH=/bin", "TERM=xterm"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: fmt.Sprintf("%s/c%d", s.cgroup, s.n),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
		},
	}
}

// request makes a container that runs a shell script.
func (s *shimTest) request(script string) *StartRequest {
	s.n++
	id := fmt.Sprintf("c%d", s.n)
	raw, err := json.Marshal(s.spec("sh", "-c", script))
	if err != nil {
		s.Fatal(err)
	}
	return &StartRequest{ID: id, Spec: raw, OwnParent: true, Log: logs.Config{Driver: logs.JSONFile, Path: filepath.Join(s.TempDir(), id+"-json.log")}}
}

func (s *shimTest) start(r *StartRequest) *StartReply {
	s.Helper()
	reply, err := s.Start(s.Context(), r, nil)
	if err != nil {
		s.Fatal(err)
	}
	return reply
}

// follow subscribes to events; they are delivered to await.
func (s *shimTest) follow() {
	s.Helper()
	ch, err := s.Events(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.events = make(chan Event, 10000)
	out := s.events
	go func() {
		for e := range ch {
			out <- e
		}
		close(out)
	}()
}

// await returns the next event of a kind about a process.
func (s *shimTest) await(kind, id, exec string) Event {
	s.Helper()
	match := func(e Event) bool { return e.Type == kind && e.ID == id && e.ExecID == exec }
	if i := slices.IndexFunc(s.early, match); i >= 0 {
		e := s.early[i]
		s.early = slices.Delete(s.early, i, i+1)
		return e
	}
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				s.follow()
				continue
			}
			if match(e) {
				return e
			}
			s.early = append(s.early, e)
		case <-deadline:
			list, _ := s.List(s.Context())
			s.Fatalf("no %s of %s %s came; there is %+v", kind, id, exec, list)
		}
	}
}

func (s *shimTest) lines(r *StartRequest) []string {
	s.Helper()
	var out []string
	err := logs.Read(s.Context(), r.Log, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}, nil, func(m *logs.Message) error {
		out = append(out, m.Stream+":"+string(m.Line))
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// stream is the client's side of an attachment.
type stream struct {
	*net.UnixConn
	s    *shimTest
	mu   sync.Mutex
	out  bytes.Buffer
	err  bytes.Buffer
	more chan struct{}
	done chan struct{}
}

func (s *shimTest) attach(r *AttachRequest) *stream {
	s.Helper()
	st, theirs := s.pair(r.Multiplex)
	if err := s.Attach(s.Context(), r, theirs); err != nil {
		s.Fatal(err)
	}
	theirs.Close()
	return st
}

// exec starts a further process together with its client.
func (s *shimTest) exec(r *ExecRequest) *stream {
	s.Helper()
	st, theirs := s.pair(r.Attach.Multiplex)
	defer theirs.Close()
	if _, err := s.Exec(s.Context(), r, theirs); err != nil {
		s.Fatal(err)
	}
	return st
}

func (s *shimTest) pair(mux bool) (*stream, *os.File) {
	s.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.Fatal(err)
	}
	mine := os.NewFile(uintptr(fds[0]), "client")
	c, err := net.FileConn(mine)
	if err != nil {
		s.Fatal(err)
	}
	mine.Close()
	st := &stream{UnixConn: c.(*net.UnixConn), s: s, more: make(chan struct{}, 1), done: make(chan struct{})}
	s.Cleanup(func() { c.Close() })
	go st.read(mux)
	return st, os.NewFile(uintptr(fds[1]), "theirs")
}

func (st *stream) read(mux bool) {
	defer close(st.done)
	for {
		into := &st.out
		n := 32 << 10
		if mux {
			var head [8]byte
			if _, err := io.ReadFull(st, head[:]); err != nil {
				return
			}
			if head[0] == 2 {
				into = &st.err
			}
			n = int(binary.BigEndian.Uint32(head[4:]))
		}
		buf := make([]byte, n)
		var err error
		if mux {
			_, err = io.ReadFull(st, buf)
		} else {
			n, err = st.Read(buf)
		}
		if err != nil {
			return
		}
		st.mu.Lock()
		into.Write(buf[:n])
		st.mu.Unlock()
		select {
		case st.more <- struct{}{}:
		default:
		}
	}
}

func (st *stream) text() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.out.String()
}

// expect waits until the output contains text.
func (st *stream) expect(text string) {
	st.s.Helper()
	deadline := time.After(30 * time.Second)
	for !strings.Contains(st.text(), text) {
		select {
		case <-st.more:
		case <-st.done:
			if !strings.Contains(st.text(), text) {
				st.s.Fatalf("the stream ended without %q: %q", text, st.text())
			}
		case <-deadline:
			st.s.Fatalf("%q did not come: %.500q", text, st.text())
		}
	}
}

func (st *stream) ended() {
	st.s.Helper()
	select {
	case <-st.done:
	case <-time.After(30 * time.Second):
		st.s.Fatalf("the stream did not end: %.500q", st.text())
	}
}

func (st *stream) typed(text string) {
	st.s.Helper()
	if _, err := io.WriteString(st, text); err != nil {
		st.s.Fatal(err)
	}
}
