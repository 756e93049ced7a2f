package seccomp

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	profiles "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// call is struct seccomp_data.
type call struct {
	nr, audit uint32
	args      [6]uint64
}

// run interprets a program as the kernel does and counts its steps.
func run(t testing.TB, prog []unix.SockFilter, c call) (v verdict, steps int) {
	t.Helper()
	var acc uint32
	for pc := 0; ; pc++ {
		steps++
		if pc >= len(prog) {
			t.Fatalf("the program runs out of its end")
		}
		i := prog[pc]
		cond := func(yes bool) {
			if yes {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch {
			case i.K == offsetNr:
				acc = c.nr
			case i.K == offsetArch:
				acc = c.audit
			case i.K%4 == 0 && i.K >= offsetArgs && i.K < offsetArgs+48:
				acc = uint32(c.args[(i.K-offsetArgs)/8] >> (i.K % 8 * 8))
			default:
				t.Fatalf("load from %d", i.K)
			}
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= i.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			cond(acc == i.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			cond(acc > i.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			cond(acc >= i.K)
		case unix.BPF_RET | unix.BPF_K:
			return verdict(i.K), steps
		default:
			t.Fatalf("unknown instruction %#x", i.Code)
		}
	}
}

// plain says what a profile means, as the package documentation has it, without
// any of the compiler's means.
func plain(t testing.TB, p *specs.LinuxSeccomp, arches []arch, c call) verdict {
	t.Helper()
	must := func(a specs.LinuxSeccompAction, e *uint) verdict {
		v, err := parseAction(a, e)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	def := must(p.DefaultAction, p.DefaultErrnoRet)
	amd64 := c.audit == unix.AUDIT_ARCH_X86_64
	if amd64 && c.nr == 1<<32-1 && arches[0].audit == c.audit {
		return def
	}
	var on *arch
	for i, a := range arches {
		x32 := amd64 && c.nr >= x32Bit
		if a.audit == c.audit && (i == 0 || slices.Contains(p.Architectures, a.name)) && (a.bit != 0) == x32 {
			on = &arches[i]
		}
	}
	if on == nil && amd64 && arches[0].audit == c.audit && def.action() == fail {
		return noSuchCall
	}
	if on == nil {
		return killProcess
	}
	highest, found := uint32(0), false
	decided, conditional := verdict(0), verdict(0)
	var haveDecided, haveConditional bool
	for _, s := range p.Syscalls {
		then := must(s.Action, s.ErrnoRet)
		if then == def {
			continue
		}
		for _, name := range s.Names {
			nr, ok := number(row(name), on.column)
			if !ok {
				continue
			}
			nr |= on.bit
			if nr&^uint32(x32Bit) < armPrivate {
				highest = max(highest, nr)
			}
			found = true
			if nr != c.nr {
				continue
			}
			if len(s.Args) == 0 && !haveDecided {
				decided, haveDecided = then, true
			}
			if len(s.Args) > 0 && !haveConditional && matches(s.Args, c, on.narrow) {
				conditional, haveConditional = then, true
			}
		}
	}
	switch {
	case haveDecided:
		return decided
	case haveConditional:
		return conditional
	}
	if found && c.nr > highest && def.restrictive() && !named(p, on, c.nr, def) {
		return noSuchCall
	}
	return def
}

// named says whether a rule that counts names the call.
func named(p *specs.LinuxSeccomp, on *arch, want uint32, def verdict) bool {
	for _, s := range p.Syscalls {
		if v, _ := parseAction(s.Action, s.ErrnoRet); v == def {
			continue
		}
		for _, name := range s.Names {
			if nr, ok := number(row(name), on.column); ok && nr|on.bit == want {
				return true
			}
		}
	}
	return false
}

func matches(conds []specs.LinuxSeccompArg, c call, narrow bool) bool {
	indexes := map[uint]int{}
	for _, a := range conds {
		indexes[a.Index]++
	}
	hits := 0
	for _, a := range conds {
		if holds(a, c.args[a.Index], narrow) {
			hits++
		}
	}
	if len(indexes) < len(conds) {
		return hits > 0
	}
	return hits == len(conds)
}

func holds(a specs.LinuxSeccompArg, v uint64, narrow bool) bool {
	x, y := a.Value, a.ValueTwo
	if narrow {
		v, x, y = v&0xffffffff, x&0xffffffff, y&0xffffffff
	}
	switch a.Op {
	case specs.OpNotEqual:
		return v != x
	case specs.OpLessThan:
		return v < x
	case specs.OpLessEqual:
		return v <= x
	case specs.OpEqualTo:
		return v == x
	case specs.OpGreaterEqual:
		return v >= x
	case specs.OpGreaterThan:
		return v > x
	}
	return v&x == y
}

func ptr[T any](v T) *T { return &v }

var allNames = func() (names []string) {
	for line := range strings.Lines(numbers) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names
}

func randomValue(r *rand.Rand) uint64 {
	return []uint64{0, 1, 2, 38, 0xffffffff, 1 << 32, 1<<32 + 1, 1<<63 + 2, 1<<64 - 1, r.Uint64(), uint64(r.Uint32())}[r.IntN(11)]
}

func randomProfile(r *rand.Rand, names []string) *specs.LinuxSeccomp {
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap, specs.ActLog, specs.ActTrace, specs.ActKill}
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	p := &specs.LinuxSeccomp{DefaultAction: actions[r.IntN(len(actions))]}
	for _, a := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchMIPS} {
		if r.IntN(2) == 0 {
			p.Architectures = append(p.Architectures, a)
		}
	}
	for range r.IntN(12) {
		s := specs.LinuxSyscall{Action: actions[r.IntN(len(actions))]}
		if s.Action == specs.ActErrno {
			s.ErrnoRet = ptr(uint(r.IntN(40)))
		}
		for range 1 + r.IntN(20) {
			s.Names = append(s.Names, names[r.IntN(len(names))])
		}
		s.Names = append(s.Names, "no_such_call", "clone")
		for range r.IntN(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Value: randomValue(r), ValueTwo: randomValue(r), Op: ops[r.IntN(len(ops))]})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

// calls lists every number near every call of every architecture.
func calls(r *rand.Rand) (list []call) {
	for _, audit := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_MIPS} {
		nrs := []uint32{1<<32 - 1, 1<<32 - 2, 1 << 31, armPrivate, armPrivate + 1, armPrivate + 5, armPrivate + 7, x32Bit - 1}
		for nr := range uint32(600) {
			nrs = append(nrs, nr, nr|x32Bit)
		}
		for _, nr := range nrs {
			c := call{nr: nr, audit: audit}
			for i := range c.args {
				c.args[i] = randomValue(r)
			}
			list = append(list, c)
		}
	}
	return list
}

// A filter that means something else than its profile either breaks programs or
// lets them out.
func TestProgramMeansTheProfile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := allNames()
	for _, goarch := range []string{"amd64", "arm64"} {
		arches := archesOf(goarch)
		for range 15 {
			p := randomProfile(r, names)
			prog, err := compileFor(p, arches)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range calls(r) {
				got, _ := run(t, prog.Filter, c)
				if want := plain(t, p, arches, c); got != want {
					b, _ := json.Marshal(p)
					t.Fatalf("%s, call %+v: program says %v, profile says %v\n%s", goarch, c, got, want, b)
				}
			}
		}
	}
}

// dockerProfile is Docker's default for its default capabilities.
func dockerProfile(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_SYS_CHROOT"}}}, Linux: &specs.Linux{}}
	p, err := profiles.GetDefaultProfile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDockerProfile(t *testing.T) {
	p := dockerProfile(t)
	arches := archesOf("amd64")
	prog, err := compileFor(p, arches)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 2 {
		for _, c := range calls(r) {
			if got, _ := run(t, prog.Filter, c); got != plain(t, p, arches, c) {
				t.Fatalf("call %+v: %v, want %v", c, got, plain(t, p, arches, c))
			}
		}
	}
	const newns = unix.CLONE_NEWNS
	for _, tc := range []struct {
		name string
		args [6]uint64
		want verdict
	}{
		{"read", [6]uint64{}, allow},
		{"mount", [6]uint64{}, fail | verdict(unix.EPERM)},
		{"clone", [6]uint64{uint64(unix.SIGCHLD)}, allow},
		{"clone", [6]uint64{newns}, fail | verdict(unix.EPERM)},
		{"clone3", [6]uint64{}, noSuchCall},
		{"socket", [6]uint64{unix.AF_INET}, allow},
		{"socket", [6]uint64{unix.AF_VSOCK}, fail | verdict(unix.EPERM)},
		{"personality", [6]uint64{0xffffffff}, allow},
		{"personality", [6]uint64{1}, fail | verdict(unix.EPERM)},
	} {
		nr, _ := number(row(tc.name), 1)
		if got, _ := run(t, prog.Filter, call{nr: nr, audit: arches[0].audit, args: tc.args}); got != tc.want {
			t.Errorf("%s%v: %v, want %v", tc.name, tc.args, got, tc.want)
		}
	}
	if got, _ := run(t, prog.Filter, call{nr: 9999, audit: arches[0].audit}); got != noSuchCall {
		t.Errorf("a call of the future: %v, want ENOSYS", got)
	}
	longest := 0
	for nr := range uint32(480) {
		_, steps := run(t, prog.Filter, call{nr: nr, audit: arches[0].audit})
		longest = max(longest, steps)
	}
	t.Logf("%d instructions; the longest way through is %d", len(prog.Filter), longest)
	// A start pays for each of them: what only returns is there once or twice.
	returns := 0
	for _, in := range prog.Filter {
		if in.Code == unix.BPF_RET|unix.BPF_K {
			returns++
		}
	}
	if returns > len(prog.Filter)/4 {
		t.Errorf("%d of %d instructions return", returns, len(prog.Filter))
	}
	if _, steps := run(t, prog.Filter, call{nr: unix.SYS_READ, audit: arches[0].audit}); arches[0].name == native()[0].name && steps > 14 {
		t.Errorf("read takes %d instructions", steps)
	}
}

func TestRefusals(t *testing.T) {
	rule := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{s}}
	}
	arg := func(a specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{a}})
	}
	many := rule(specs.LinuxSyscall{Names: allNames(), Action: specs.ActErrno})
	for i := range 6 {
		many.Syscalls[0].Args = append(many.Syscalls[0].Args, specs.LinuxSeccompArg{Index: uint(i), Op: specs.OpEqualTo})
	}
	for name, p := range map[string]*specs.LinuxSeccomp{
		"no default":          {},
		"default notify":      {DefaultAction: specs.ActNotify, ListenerPath: "/x"},
		"unknown arch":        {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_Z80"}},
		"unknown flag":        {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		"listener for none":   {DefaultAction: specs.ActAllow, ListenerPath: "/x"},
		"no listener":         rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActNotify}),
		"notified write":      {DefaultAction: specs.ActAllow, ListenerPath: "/x", Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}},
		"no names":            rule(specs.LinuxSyscall{Action: specs.ActErrno}),
		"unknown action":      rule(specs.LinuxSyscall{Names: []string{"read"}, Action: "SCMP_ACT_BITE"}),
		"errno of an allow":   rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, ErrnoRet: ptr(uint(1))}),
		"errno too large":     rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(1 << 20))}),
		"seventh argument":    arg(specs.LinuxSeccompArg{Index: 6, Op: specs.OpEqualTo}),
		"unknown operator":    arg(specs.LinuxSeccompArg{Op: "SCMP_CMP_SOMEHOW"}),
		"more than BPF takes": many,
	} {
		if prog, err := compileFor(p, archesOf("amd64")); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v, %v", name, prog, err)
		}
	}
	if prog, err := Compile(nil); prog != nil || err != nil {
		t.Errorf("nil profile: %v, %v", prog, err)
	}
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		flags  []specs.LinuxSeccompFlag
		notify bool
		want   uint
	}{
		{nil, false, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{}, false, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"}, false, unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, false, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, true, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER},
	} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: tc.flags}
		if tc.notify {
			p.ListenerPath = "/run/x"
			p.Syscalls = []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
		}
		prog, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		if prog.Flags != tc.want || prog.Notify != tc.notify {
			t.Errorf("flags %v: %#x, want %#x", tc.flags, prog.Flags, tc.want)
		}
	}
}

func TestTable(t *testing.T) {
	names := allNames()
	if !slices.IsSorted(names) {
		t.Error("the table is not sorted")
	}
	for _, n := range names {
		if !Known(n) {
			t.Errorf("%s is not found", n)
		}
	}
	for _, n := range []string{"", "a", "zzz", "rea", "readx", "read 0"} {
		if Known(n) {
			t.Errorf("%q is found", n)
		}
	}
	for _, tc := range []struct {
		name   string
		column int
		want   uint32
	}{{"read", native()[0].column, unix.SYS_READ}, {"read", 1, 0}, {"read", 2, 3}, {"read", 4, 63}, {"ioctl", 3, 514}, {"openat2", 4, 437}, {"set_tls", 5, 0x0f0005}} {
		if nr, ok := number(row(tc.name), tc.column); !ok || nr != tc.want {
			t.Errorf("%s in column %d is %d, %v", tc.name, tc.column, nr, ok)
		}
	}
}

func FuzzCompile(f *testing.F) {
	b, err := json.Marshal(dockerProfile(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X32"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_NE"},{"index":0,"value":2,"op":"SCMP_CMP_MASKED_EQ"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p specs.LinuxSeccomp
		if json.Unmarshal(b, &p) != nil {
			return
		}
		for _, goarch := range []string{"amd64", "arm64"} {
			arches := archesOf(goarch)
			prog, err := compileFor(&p, arches)
			if err != nil {
				continue
			}
			for _, c := range calls(rand.New(rand.NewPCG(1, 1)))[:200] {
				if got, _ := run(t, prog.Filter, c); got != plain(t, &p, arches, c) {
					t.Fatalf("call %+v: %v, want %v", c, got, plain(t, &p, arches, c))
				}
			}
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	p := dockerProfile(b)
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
