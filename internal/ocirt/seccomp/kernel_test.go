package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process under the filter.
func TestMain(m *testing.M) {
	if p := os.Getenv("GANTRY_SECCOMP_HELPER"); p != "" {
		helper(p)
		return
	}
	os.Exit(m.Run())
}

// helper installs a profile on all its threads and prints what some calls
// return.
func helper(text string) {
	var p specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	prog, err := Compile(&p)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog.Filter)), Filter: &prog.Filter[0]}
	flags := prog.Flags | unix.SECCOMP_FILTER_FLAG_TSYNC
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		fmt.Println("install:", errno)
		os.Exit(1)
	}
	for _, c := range kernelCalls() {
		_, _, errno := unix.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], 0, 0, 0)
		fmt.Println(int(errno))
	}
	if os.Getenv("GANTRY_SECCOMP_DIE") != "" {
		_, _, _ = unix.RawSyscall(unix.SYS_ACCT, 0, 0, 0)
		fmt.Println("alive")
	}
}

type kernelCall struct {
	name string
	nr   uintptr
	args [3]uintptr
	want syscall.Errno
}

func kernelCalls() []kernelCall {
	return []kernelCall{
		{"socket by an allowed family", unix.SYS_SOCKET, [3]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}, 0},
		{"socket by a denied family", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, unix.EXDEV},
		{"64-bit argument above the limit", unix.SYS_LSEEK, [3]uintptr{1 << 16, 1 << 40, 0}, unix.EDOM},
		{"64-bit argument below the limit", unix.SYS_LSEEK, [3]uintptr{1 << 16, 1<<40 - 1, 0}, unix.EBADF},
		{"both conditions", unix.SYS_DUP3, [3]uintptr{1 << 16, 7, unix.O_CLOEXEC | 0x3}, unix.ERANGE},
		{"one of two conditions", unix.SYS_DUP3, [3]uintptr{1 << 16, 8, unix.O_CLOEXEC | 0x3}, unix.EINVAL},
		{"unknown call", 100000, [3]uintptr{}, unix.ENOSYS},
	}
}

func kernelProfile(other specs.LinuxSeccompAction) *specs.LinuxSeccomp {
	rule := func(name string, errno syscall.Errno, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: ptr(uint(errno)), Args: args}
	}
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchARM},
		Syscalls: []specs.LinuxSyscall{
			rule("socket", unix.EXDEV, specs.LinuxSeccompArg{Value: unix.AF_VSOCK, Op: specs.OpEqualTo}),
			rule("lseek", unix.EDOM, specs.LinuxSeccompArg{Index: 1, Value: 1 << 40, Op: specs.OpGreaterEqual}),
			rule("dup3", unix.ERANGE, specs.LinuxSeccompArg{Index: 1, Value: 7, Op: specs.OpEqualTo},
				specs.LinuxSeccompArg{Index: 2, Value: 3, ValueTwo: 3, Op: specs.OpMaskedEqual}),
			{Names: []string{"acct"}, Action: other},
		},
	}
}

func startHelper(t *testing.T, p *specs.LinuxSeccomp, env ...string) ([]string, error) {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(env, "GANTRY_SECCOMP_HELPER="+string(b))
	out, err := cmd.Output()
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err
}

// The kernel takes the program and does what it says.
func TestKernel(t *testing.T) {
	if len(native()) == 0 {
		t.Skip("no table of system calls for", runtime.GOARCH)
	}
	got, err := startHelper(t, kernelProfile(specs.ActErrno))
	if err != nil {
		t.Fatalf("%v: %v", err, got)
	}
	for i, c := range kernelCalls() {
		if i >= len(got) || got[i] != fmt.Sprint(int(c.want)) {
			t.Errorf("%s: %v, want %d (%v)", c.name, got, int(c.want), c.want)
		}
	}
}

func TestKernelKills(t *testing.T) {
	if len(native()) == 0 {
		t.Skip("no table of system calls for", runtime.GOARCH)
	}
	out, err := startHelper(t, kernelProfile(specs.ActKillProcess), "GANTRY_SECCOMP_DIE=1")
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("%v: %v", err, out)
	}
	if ws := exit.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != unix.SIGSYS {
		t.Errorf("the process ended with %v, want SIGSYS: %v", err, out)
	}
}

// Go programs, which use many threads, run under Docker's profile.
func TestKernelTakesDockerProfile(t *testing.T) {
	if len(native()) == 0 {
		t.Skip("no table of system calls for", runtime.GOARCH)
	}
	if out, err := startHelper(t, dockerProfile(t)); err != nil || len(out) < len(kernelCalls()) {
		t.Errorf("%v: %v", err, out)
	}
}
