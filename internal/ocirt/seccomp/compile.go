package seccomp

import (
	"fmt"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Program is a compiled profile.
type Program struct {
	// Filter is for seccomp(SECCOMP_SET_MODE_FILTER).
	Filter []unix.SockFilter
	// Flags are its SECCOMP_FILTER_FLAG_*. With FLAG_NEW_LISTENER the call returns
	// the listener's descriptor.
	Flags uint
	// Notify says that a rule needs the listener, which goes to the socket
	// ListenerPath with ListenerMetadata (config-linux.md, "The Container Process
	// State").
	Notify           bool
	ListenerPath     string
	ListenerMetadata string
}

// maxInsns is the kernel's limit, BPF_MAXINSNS.
const maxInsns = 4096

// Compile turns a profile into a program for the kernel this process runs on. It
// returns nil, without an error, for a nil profile. The error is
// ErrInvalidArgument for a profile that is wrong or too large, and
// ErrNotImplemented on architectures without a table of system calls.
func Compile(p *specs.LinuxSeccomp) (*Program, error) {
	if p == nil {
		return nil, nil
	}
	return compileFor(p, native())
}

func compileFor(p *specs.LinuxSeccomp, arches []arch) (*Program, error) {
	if len(arches) == 0 {
		return nil, errs.NotImplemented("cannot compile a seccomp profile: there is no table of system calls for %s", runtime.GOARCH)
	}
	prof, err := parseProfile(p, arches)
	if err != nil {
		return nil, err
	}
	out := &Program{ListenerPath: p.ListenerPath, ListenerMetadata: p.ListenerMetadata}
	out.Notify = slices.ContainsFunc(prof.rules, func(r parsedRule) bool { return r.clauses[0].then == notify })
	if out.Flags, err = flags(p, out.Notify); err != nil {
		return nil, err
	}
	out.Filter = prof.assemble()
	if len(out.Filter) > maxInsns {
		return nil, errs.InvalidArgument("the seccomp profile is too large: %d instructions, and the kernel takes %d", len(out.Filter), maxInsns)
	}
	return out, nil
}

// flags reads the flags of seccomp(2). Without any in the profile the mitigation
// of speculative store bypass is left off, as the other runtimes and the kernel
// itself have it since 5.16.
func flags(p *specs.LinuxSeccomp, notified bool) (uint, error) {
	var f uint
	if p.Flags == nil {
		f = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	for _, name := range p.Flags {
		switch name {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			f |= unix.SECCOMP_FILTER_FLAG_TSYNC
		case specs.LinuxSeccompFlagLog:
			f |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			f |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			f |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, errs.InvalidArgument("invalid seccomp flag %q", string(name))
		}
	}
	if !notified {
		if p.ListenerPath != "" {
			return 0, errs.InvalidArgument("seccomp has a listenerPath, but no rule has the action %s", specs.ActNotify)
		}
		return f &^ unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, nil
	}
	if p.ListenerPath == "" {
		return 0, errs.InvalidArgument("a seccomp rule has the action %s, but there is no listenerPath", specs.ActNotify)
	}
	if f&unix.SECCOMP_FILTER_FLAG_TSYNC != 0 {
		f |= unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	}
	return f | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, nil
}

// Supported lists what features(json) says of this package: actions, operators,
// architectures and flags, in the words of the specification.
func Supported() (actions, operators, archs, flags []string) {
	for _, a := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess,
		specs.ActKillThread, specs.ActLog, specs.ActNotify, specs.ActTrace, specs.ActTrap} {
		actions = append(actions, string(a))
	}
	for _, o := range []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan,
		specs.OpLessEqual, specs.OpLessThan, specs.OpMaskedEqual, specs.OpNotEqual} {
		operators = append(operators, string(o))
	}
	for _, a := range native() {
		archs = append(archs, string(a.name))
	}
	return actions, operators, archs, []string{
		"SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagLog),
		string(specs.LinuxSeccompFlagSpecAllow), string(specs.LinuxSeccompFlagWaitKillableRecv),
	}
}

func (v verdict) String() string { return fmt.Sprintf("%#08x", uint32(v)) }
