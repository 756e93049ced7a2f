package seccomp

import (
	"math/rand/v2"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What Permits says decides when an exec shows itself to the container, so it
// has to be what the kernel will do.
func TestPermits(t *testing.T) {
	p, err := Compile(dockerProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		nr   uintptr
		args []uint64
		want bool
	}{
		{"clone of a process", unix.SYS_CLONE, []uint64{unix.CLONE_PARENT | uint64(unix.SIGCHLD)}, true},
		{"clone with a user namespace", unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, false},
		{"clone3, which is answered with ENOSYS", unix.SYS_CLONE3, nil, false},
		{"setsid", unix.SYS_SETSID, nil, true},
		{"mount", unix.SYS_MOUNT, nil, false},
	} {
		if got := p.Permits(test.nr, test.args...); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	notified, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/l",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"setsid"}, Action: specs.ActNotify}}})
	if err != nil {
		t.Fatal(err)
	}
	if notified.Permits(unix.SYS_SETSID) {
		t.Error("a call that waits for an agent is permitted")
	}
}

func TestEvaluateMeansTheProgram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p, err := Compile(dockerProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls(r) {
		want, _ := run(t, p.Filter, c)
		if got, ok := evaluate(p.Filter, c.nr, c.audit, &c.args); !ok || got != want {
			t.Fatalf("%+v: %v, not %v", c, got, want)
		}
	}
}
