package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process in the cgroup, too: these tests
// also run as the only program of a virtual machine.
func TestMain(m *testing.M) {
	if mode := os.Getenv("GANTRY_CGROUP_HELPER"); mode != "" {
		helper(mode)
		return
	}
	os.Exit(m.Run())
}

// helper waits for a line on stdin, does what it was started for and then waits
// for the end of stdin.
func helper(mode string) {
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		arg := strings.TrimSpace(line)
		switch mode {
		case "echo":
			fmt.Println(arg)
		case "eat": // megabytes
			n, _ := strconv.Atoi(arg)
			b := make([]byte, n<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			fmt.Println(len(b))
		case "spin":
			for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
			}
			fmt.Println("spun")
		case "open":
			f, err := os.OpenFile(arg, os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			fmt.Println(errors.Is(err, fs.ErrPermission))
		case "fork":
			err := exec.Command("/proc/self/exe").Run()
			fmt.Println(errors.Is(err, syscall.EAGAIN))
		case "join": // the way a single thread moves itself
			fmt.Println(writeFile(arg, "0"))
		}
	}
}

type proc struct {
	*exec.Cmd
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, mode string) *proc {
	t.Helper()
	p := &proc{Cmd: exec.Command("/proc/self/exe"), t: t}
	p.Env = []string{"GANTRY_CGROUP_HELPER=" + mode, "GOMAXPROCS=1"}
	p.Stderr = os.Stderr
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	return p
}

// ask sends a line and returns the answer, or the error of a process that died.
func (p *proc) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return "", err
	}
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

func (p *proc) mustAsk(line string) string {
	p.t.Helper()
	s, err := p.ask(line)
	if err != nil {
		p.t.Fatalf("the helper died: %v", err)
	}
	return s
}

// create makes a cgroup for the test, and a process in it.
func create(t *testing.T, res *specs.LinuxResources, mode string) (*Cgroup, *proc) {
	t.Helper()
	c := newTest(t)
	if err := c.Create(res); err != nil {
		if errors.Is(err, errdefs.ErrNotImplemented) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	p := start(t, mode)
	if err := c.Add(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return c, p
}

func newTest(t *testing.T) *Cgroup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if len(Controllers()) == 0 {
		t.Skip("no cgroup controllers on this machine")
	}
	parent := New(fmt.Sprintf("/gantry-test-%d", os.Getpid()))
	c := New(parent.Path() + "/" + strings.ReplaceAll(t.Name(), "/", "-"))
	t.Cleanup(func() {
		_ = c.Kill(unix.SIGKILL)
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
		if err := parent.Delete(); err != nil {
			t.Error(err)
		}
		for _, d := range append(c.dirs(), parent.dirs()...) {
			if exists(d) {
				t.Errorf("%s was left behind", d)
			}
		}
	})
	return c
}

func read(t *testing.T, c *Cgroup, controller, v1, v2 string) string {
	t.Helper()
	dir, unified := c.dir(controller)
	file := v1
	if unified {
		file = v2
	}
	s, err := readFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func TestLifecycle(t *testing.T) {
	c, p := create(t, nil, "echo")
	pids, err := c.Pids()
	if err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
		t.Fatalf("processes are %v (%v), want %d", pids, err, p.Process.Pid)
	}
	again, err := Load(c.Path())
	if err != nil || again.Path() != c.Path() {
		t.Fatalf("load: %v", err)
	}
	if err := c.Delete(); !errors.Is(err, errdefs.ErrConflict) {
		t.Fatalf("deleting a cgroup in use: %v", err)
	}
	if err := c.Kill(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(); err != nil {
		t.Fatalf("deleting twice: %v", err)
	}
	if _, err := Load(c.Path()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("loading a deleted cgroup: %v", err)
	}
	if err := c.Add(os.Getpid()); err == nil {
		t.Fatal("a process was added to a deleted cgroup")
	}
}

func TestJoinByItself(t *testing.T) {
	c := newTest(t)
	if err := c.Create(nil); err != nil {
		t.Fatal(err)
	}
	p := start(t, "join")
	for _, f := range c.ProcsFiles() {
		if got := p.mustAsk(f); got != "<nil>" {
			t.Fatalf("%s: %s", f, got)
		}
	}
	// Only the one thread that wrote moved on v1.
	for _, d := range c.dirs() {
		name := "tasks"
		if c.lay.mode == Unified {
			name = "cgroup.procs"
		}
		if s, err := readFile(filepath.Join(d, name)); err != nil || strings.TrimSpace(s) == "" {
			t.Errorf("nobody is in %s (%v)", d, err)
		}
	}
}

func TestFreeze(t *testing.T) {
	c, p := create(t, nil, "echo")
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if f, err := c.Frozen(); !f || err != nil {
		t.Fatalf("frozen is %v, %v", f, err)
	}
	answer := make(chan string)
	go func() { s, _ := p.ask("hello"); answer <- s }()
	select {
	case s := <-answer:
		t.Fatalf("a frozen process answered %q", s)
	case <-time.After(50 * time.Millisecond):
	}
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	if s := <-answer; s != "hello" {
		t.Fatalf("thawed, the process answered %q", s)
	}
	if f, err := c.Frozen(); f || err != nil {
		t.Fatalf("frozen is %v, %v", f, err)
	}
}

func TestKillFrozen(t *testing.T) {
	c, p := create(t, nil, "echo")
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the process survived")
	}
}

func TestMemoryAndPidsLimits(t *testing.T) {
	const mb = 1 << 20
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 * mb)), Reservation: ptr(int64(32 * mb))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(50))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
	}
	c, _ := create(t, res, "echo")
	if got := read(t, c, "memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory limit is %s", got)
	}
	if got := read(t, c, "memory", "memory.soft_limit_in_bytes", "memory.low"); got != "33554432" {
		t.Errorf("reservation is %s", got)
	}
	if got := read(t, c, "pids", "pids.max", "pids.max"); got != "50" {
		t.Errorf("pids limit is %s", got)
	}
	if got := read(t, c, "cpu", "cpu.shares", "cpu.weight"); got != "1024" && got != "100" {
		t.Errorf("shares are %s", got)
	}
	if got := read(t, c, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != "50000" && got != "50000 100000" {
		t.Errorf("quota is %s", got)
	}
	// A period that makes the old quota invalid, and a smaller quota than before.
	if err := c.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10000)), Period: ptr(uint64(20000))}}); err != nil {
		t.Error(err)
	}
	// Lowering and raising both limits in one go.
	if !Supported().Swap {
		return
	}
	for _, n := range []int64{16, 128, 32} {
		m := &specs.LinuxMemory{Limit: ptr(n * mb), Swap: ptr(2 * n * mb)}
		if err := c.Set(&specs.LinuxResources{Memory: m}); err != nil {
			t.Fatalf("%d MB: %v", n, err)
		}
		if got := read(t, c, "memory", "memory.limit_in_bytes", "memory.max"); got != itoa(n*mb) {
			t.Errorf("memory limit is %s, want %d MB", got, n)
		}
	}
	tight := &specs.LinuxMemory{Limit: ptr(int64(4096)), CheckBeforeUpdate: ptr(true)}
	if dir, _ := c.dir("memory"); dir != "" {
		if s, err := c.Stats(); err == nil && s.Memory.Usage > 4096 {
			if err := c.Set(&specs.LinuxResources{Memory: tight}); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("a limit below what is in use: %v", err)
			}
		}
	}
}

func TestPidsLimitBites(t *testing.T) {
	c, p := create(t, nil, "fork")
	if got := p.mustAsk(""); got != "false" {
		t.Fatal("the process could not fork before the limit")
	}
	if err := c.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(1))}}); err != nil {
		t.Fatal(err)
	}
	if got := p.mustAsk(""); got != "true" {
		t.Error("the process could fork beyond the limit")
	}
}

func TestOOM(t *testing.T) {
	const mb = 1 << 20
	m := &specs.LinuxMemory{Limit: ptr(int64(32 * mb))}
	if Supported().Swap {
		m.Swap = ptr(int64(32 * mb))
	}
	c, p := create(t, &specs.LinuxResources{Memory: m}, "eat")
	w, err := c.OOM()
	if err != nil {
		t.Skip(err)
	}
	defer w.Close()
	type result struct {
		n   uint64
		err error
	}
	heard := make(chan result, 1)
	go func() { n, err := w.Wait(); heard <- result{n, err} }()
	if s, err := p.ask("256"); err == nil {
		t.Fatalf("the process got its memory: %s", s)
	}
	select {
	case r := <-heard:
		if r.n != 1 || r.err != nil {
			t.Fatalf("heard of %d kills, %v", r.n, r.err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody heard of the OOM kill")
	}
	if n, err := c.OOMKills(); n != 1 || err != nil {
		t.Errorf("counted %d kills, %v", n, err)
	}
	if s, err := c.Stats(); err != nil || s.Memory.OOMKills != 1 {
		t.Errorf("statistics %+v, %v", s, err)
	}
	_ = p.Wait()
	// The end of the cgroup ends the watch.
	go func() { n, err := w.Wait(); heard <- result{n, err} }()
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-heard:
		if !errors.Is(r.err, io.EOF) {
			t.Errorf("after the end: %v", r.err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the watch outlived its cgroup")
	}
}

func TestOOMClose(t *testing.T) {
	c, _ := create(t, nil, "echo")
	w, err := c.OOM()
	if err != nil {
		t.Skip(err)
	}
	done := make(chan error, 1)
	go func() { _, err := w.Wait(); done <- err }()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// node makes a device node where device nodes work.
func node(t *testing.T, name string, mode, major, minor uint32) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mknod(path, mode|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Skip("cannot make device nodes here:", err)
	}
	return path
}

func TestDevices(t *testing.T) {
	null := node(t, "null", unix.S_IFCHR, 1, 3)
	kmsg := node(t, "kmsg", unix.S_IFCHR, 1, 11)
	c, p := create(t, nil, "open")
	denied := func(path string) bool { t.Helper(); return p.mustAsk(path) == "true" }
	if denied(null) || !denied(kmsg) {
		t.Error("by default /dev/null must open and /dev/kmsg must not")
	}
	rule := func(allow bool, typ, access string, num ...int64) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: typ, Access: access}
		if len(num) == 2 {
			r.Major, r.Minor = &num[0], &num[1]
		}
		return r
	}
	for _, step := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		kmsg  bool
	}{
		{"reading alone", []specs.LinuxDeviceCgroup{rule(false, "a", "rwm"), rule(true, "c", "r", 1, 11)}, false},
		{"reading and writing by two rules", []specs.LinuxDeviceCgroup{rule(false, "a", "rwm"), rule(true, "c", "r", 1, 11), rule(true, "c", "w", 1, 11)}, true},
		{"taken back", []specs.LinuxDeviceCgroup{rule(false, "a", "rwm")}, false},
		{"everything", []specs.LinuxDeviceCgroup{rule(true, "", "rwm")}, true},
		{"everything but one", []specs.LinuxDeviceCgroup{rule(true, "a", "rwm"), rule(false, "c", "rwm", 1, 11)}, false},
		{"nothing again", []specs.LinuxDeviceCgroup{rule(false, "", "rwm")}, false},
	} {
		if err := c.Set(&specs.LinuxResources{Devices: step.rules}); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if denied(kmsg) == step.kmsg {
			t.Errorf("%s: kmsg opens: %v, want %v", step.name, !step.kmsg, step.kmsg)
		}
		if denied(null) {
			t.Errorf("%s: /dev/null does not open", step.name)
		}
	}
	if dir, v2 := c.dir("devices"); v2 {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds, err := attachedPrograms(fd)
		if err != nil || len(fds) != 1 {
			t.Errorf("%d programs are attached, %v; want 1", len(fds), err)
		}
		for _, f := range fds {
			unix.Close(f)
		}
	}
}

func TestStats(t *testing.T) {
	c, p := create(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(99))}}, "spin")
	p.mustAsk("")
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.Total < 10e6 || s.CPU.User+s.CPU.System == 0 {
		t.Errorf("CPU is %+v", s.CPU)
	}
	if dir, v2 := c.dir("cpuacct"); dir != "" && !v2 && len(s.CPU.PerCPU) == 0 {
		t.Error("no time per CPU")
	}
	if s.Pids.Current == 0 || s.Pids.Limit != 99 {
		t.Errorf("pids are %+v", s.Pids)
	}
	if len(s.Memory.Stats) == 0 || s.Memory.Limit == 0 {
		t.Errorf("memory is %+v", s.Memory)
	}
	if err := c.Kill(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stats(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("statistics of a deleted cgroup: %v", err)
	}
}

func TestCpuset(t *testing.T) {
	c, _ := create(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}}, "echo")
	if got := read(t, c, "cpuset", "cpuset.cpus", "cpuset.cpus"); got != "0" {
		t.Errorf("CPUs are %q", got)
	}
	if err := c.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4096"}}); err == nil {
		t.Error("a CPU that is not there was accepted")
	}
}

func TestHugetlb(t *testing.T) {
	res := &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}
	c, _ := create(t, res, "echo")
	if got := read(t, c, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"); got != "4194304" {
		t.Errorf("limit is %s", got)
	}
	if s, err := c.Stats(); err != nil || s.Hugetlb["2MB"].Limit != 4<<20 {
		t.Errorf("statistics are %+v, %v", s, err)
	}
	if pids, err := c.Pids(); err != nil || len(pids) != 1 {
		t.Errorf("processes are %v, %v", pids, err)
	}
}

func TestBlkioThrottle(t *testing.T) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil || len(entries) == 0 {
		t.Skip("no block device on this machine")
	}
	text, err := readFile("/sys/block/" + entries[0].Name() + "/dev")
	if err != nil {
		t.Skip(err)
	}
	major, minor, ok := parseDev(strings.TrimSpace(text))
	if !ok {
		t.Fatalf("device number %q", text)
	}
	dev := specs.LinuxThrottleDevice{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: int64(major), Minor: int64(minor)}, Rate: 1 << 20}
	c, _ := create(t, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{dev}}}, "echo")
	if got := read(t, c, "blkio", "blkio.throttle.read_bps_device", "io.max"); !strings.Contains(got, "1048576") {
		t.Errorf("throttle is %q", got)
	}
}

// A limit that cannot be set must leave no directories.
func TestFailedCreateLeavesNothing(t *testing.T) {
	c := newTest(t)
	err := c.Create(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(1))}})
	if err == nil {
		t.Fatal("a quota of one microsecond was accepted")
	}
	for _, d := range c.dirs() {
		if exists(d) {
			t.Errorf("%s was left behind", d)
		}
	}
}

func TestSupportedAndWarnings(t *testing.T) {
	newTest(t)
	s := Supported()
	if slices.Contains(Controllers(), "memory") != s.Memory {
		t.Errorf("controllers are %v, support is %+v", Controllers(), s)
	}
	for _, w := range Warnings() {
		if !strings.HasPrefix(w, "WARNING: No ") {
			t.Errorf("warning %q", w)
		}
	}
}

// BenchmarkCreate is what the cgroup adds to the start and end of a container.
func BenchmarkCreate(b *testing.B) {
	if os.Geteuid() != 0 || len(Controllers()) == 0 {
		b.Skip("needs root and cgroups")
	}
	c := New(fmt.Sprintf("/gantry-test-%d", os.Getpid()))
	res := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(100))}}
	for b.Loop() {
		if err := c.Create(res); err != nil {
			b.Fatal(err)
		}
		if err := c.Delete(); err != nil {
			b.Fatal(err)
		}
	}
}

// The weight of an idle cgroup cannot be set: the order decides.
func TestCPUIdle(t *testing.T) {
	c, _ := create(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(512)), Idle: ptr(int64(1))}}, "echo")
	if got := read(t, c, "cpu", "cpu.idle", "cpu.idle"); got != "1" {
		t.Errorf("idle is %s", got)
	}
	if err := c.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(512)), Idle: ptr(int64(0))}}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "cpu", "cpu.shares", "cpu.weight"); got != "512" && got != "59" {
		t.Errorf("shares are %s", got)
	}
	// Burst, quota and period are each checked against the others.
	for _, n := range []uint64{1, 8, 2} {
		cpu := &specs.LinuxCPU{Quota: ptr(int64(n * 10000)), Period: ptr(n * 20000), Burst: ptr(n * 10000)}
		if err := c.Set(&specs.LinuxResources{CPU: cpu}); err != nil {
			t.Errorf("quota %d: %v", *cpu.Quota, err)
		}
	}
}

// An init inside the container may divide its cgroup; exec must still work.
func TestForExec(t *testing.T) {
	c, p := create(t, nil, "echo")
	if got := c.ForExec(p.Process.Pid); got.Path() != c.Path() {
		t.Errorf("undivided, an exec goes to %s", got.Path())
	}
	if Detect() != Unified {
		t.Skip("only v2 refuses processes in a divided cgroup")
	}
	inner := New(c.Path() + "/init.scope")
	if err := unix.Mkdir(inner.dirs()[0], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := inner.Add(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
	enableControllers(c.dirs()[0])
	second := start(t, "echo")
	if err := c.Add(second.Process.Pid); err == nil {
		t.Fatal("a divided cgroup took a process: this test tests nothing")
	}
	in := c.ForExec(p.Process.Pid)
	if in.Path() != inner.Path() {
		t.Fatalf("an exec goes to %s, want %s", in.Path(), inner.Path())
	}
	if err := in.Add(second.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if pids, err := c.Pids(); err != nil || len(pids) != 2 {
		t.Errorf("processes are %v, %v", pids, err)
	}
}
