package seccomp

import (
	"cmp"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// verdict is what a filter returns: an action with its data.
type verdict uint32

const (
	killThread  verdict = unix.SECCOMP_RET_KILL_THREAD
	killProcess verdict = unix.SECCOMP_RET_KILL_PROCESS
	trap        verdict = unix.SECCOMP_RET_TRAP
	fail        verdict = unix.SECCOMP_RET_ERRNO
	trace       verdict = unix.SECCOMP_RET_TRACE
	logged      verdict = unix.SECCOMP_RET_LOG
	allow       verdict = unix.SECCOMP_RET_ALLOW
	notify      verdict = unix.SECCOMP_RET_USER_NOTIF

	noSuchCall = fail | verdict(unix.ENOSYS)
)

func (v verdict) action() verdict { return v &^ unix.SECCOMP_RET_DATA }

// restrictive says that a call under v does not happen.
func (v verdict) restrictive() bool {
	switch v.action() {
	case fail:
		return v != noSuchCall
	case killThread, killProcess, trap:
		return true
	}
	return false
}

// parseAction reads an action with its errno. EPERM is the default of those
// that take one, as the specification has it.
func parseAction(a specs.LinuxSeccompAction, errno *uint) (verdict, error) {
	data := verdict(unix.EPERM)
	if errno != nil {
		if *errno > unix.SECCOMP_RET_DATA {
			return 0, errs.InvalidArgument("invalid seccomp errnoRet %d: must be at most %d", *errno, unix.SECCOMP_RET_DATA)
		}
		data = verdict(*errno)
	}
	switch a {
	case specs.ActErrno:
		return fail | data, nil
	case specs.ActTrace:
		return trace | data, nil
	}
	if errno != nil && *errno != 0 {
		return 0, errs.InvalidArgument("invalid seccomp errnoRet %d: the action %s takes none", *errno, a)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return killThread, nil
	case specs.ActKillProcess:
		return killProcess, nil
	case specs.ActTrap:
		return trap, nil
	case specs.ActAllow:
		return allow, nil
	case specs.ActLog:
		return logged, nil
	case specs.ActNotify:
		return notify, nil
	}
	return 0, errs.InvalidArgument("invalid seccomp action %q", string(a))
}

// clause is one rule for one call: what happens when all conditions hold.
type clause struct {
	conds []specs.LinuxSeccompArg
	then  verdict
}

// policy is what happens to one call: the first clause that matches, or else.
type policy struct {
	clauses   []clause
	decided   bool // a rule without conditions has decided
	otherwise verdict
	narrow    bool // arguments are 32 bits wide
}

func (p policy) equal(o policy) bool {
	return len(p.clauses) == 0 && len(o.clauses) == 0 && p.otherwise == o.otherwise
}

// profile is a checked specs.LinuxSeccomp.
type profile struct {
	otherwise verdict
	arches    []arch // native first
	rules     []parsedRule
}

type parsedRule struct {
	names   []string
	clauses []clause // one without conditions, or some with
}

func parseProfile(p *specs.LinuxSeccomp, arches []arch) (*profile, error) {
	def, err := parseAction(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	if def.action() == notify {
		return nil, errs.InvalidArgument("invalid seccomp default action %s: nobody could tell the listener of the first call", p.DefaultAction)
	}
	out := &profile{otherwise: def, rules: make([]parsedRule, 0, len(p.Syscalls))}
	for _, name := range p.Architectures {
		if !knownArch(name) {
			return nil, errs.InvalidArgument("invalid seccomp architecture %q", string(name))
		}
	}
	for i, a := range arches {
		if i == 0 || slices.Contains(p.Architectures, a.name) {
			out.arches = append(out.arches, a)
		}
	}
	for i := range p.Syscalls {
		r, err := parseRule(&p.Syscalls[i])
		if err != nil {
			return nil, err
		}
		if r.clauses[0].then == notify && slices.Contains(r.names, "write") {
			return nil, errs.InvalidArgument("invalid seccomp rule: write cannot be notified of, as the process itself needs it to hand over the listener")
		}
		if r.clauses[0].then != def {
			out.rules = append(out.rules, r)
		}
	}
	return out, nil
}

func parseRule(s *specs.LinuxSyscall) (parsedRule, error) {
	if len(s.Names) == 0 {
		return parsedRule{}, errs.InvalidArgument("invalid seccomp rule: it names no system call")
	}
	then, err := parseAction(s.Action, s.ErrnoRet)
	if err != nil {
		return parsedRule{}, err
	}
	var seen [6]bool
	twice := false
	for _, c := range s.Args {
		if c.Index > 5 {
			return parsedRule{}, errs.InvalidArgument("invalid seccomp argument index %d of %s: must be 0 to 5", c.Index, s.Names[0])
		}
		switch c.Op {
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
			specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return parsedRule{}, errs.InvalidArgument("invalid seccomp operator %q of %s", string(c.Op), s.Names[0])
		}
		twice = twice || seen[c.Index]
		seen[c.Index] = true
	}
	r := parsedRule{names: s.Names}
	if !twice {
		r.clauses = []clause{{s.Args, then}}
		return r, nil
	}
	for i := range s.Args {
		r.clauses = append(r.clauses, clause{s.Args[i : i+1], then})
	}
	return r, nil
}

// knownArch says whether the specification has an architecture. One that this
// kernel cannot run is no error: it has nothing to filter.
func knownArch(a specs.Arch) bool {
	switch a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
		specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// numbered is what happens to one call of one architecture.
type numbered struct {
	nr     uint32
	policy policy
}

// policies collects, for each architecture, what happens to its calls, sorted by
// number.
func (p *profile) policies() [][]numbered {
	tables := make([][]numbered, len(p.arches))
	for i := range tables {
		tables[i] = make([]numbered, 0, 512)
	}
	for _, r := range p.rules {
		for _, name := range r.names {
			nrs := row(name)
			if nrs == "" {
				continue
			}
			for i, a := range p.arches {
				if nr, ok := number(nrs, a.column); ok {
					tables[i] = append(tables[i], numbered{nr | a.bit, policy{clauses: r.clauses, otherwise: p.otherwise, narrow: a.narrow}})
				}
			}
		}
	}
	for i, t := range tables {
		tables[i] = merge(t)
	}
	return tables
}

// merge sorts and makes one policy of all rules for the same number, in the
// order of the profile.
func merge(t []numbered) []numbered {
	slices.SortStableFunc(t, func(a, b numbered) int { return cmp.Compare(a.nr, b.nr) })
	out := t[:0]
	for _, n := range t {
		rule := n.policy.clauses
		if last := len(out) - 1; last >= 0 && out[last].nr == n.nr {
			out[last].policy = out[last].policy.with(rule)
			continue
		}
		n.policy.clauses = nil
		n.policy = n.policy.with(rule)
		out = append(out, n)
	}
	return out
}

// with adds a rule to those before it.
func (p policy) with(cs []clause) policy {
	switch {
	case p.decided:
	case len(cs[0].conds) == 0:
		return policy{otherwise: cs[0].then, decided: true}
	case len(p.clauses) == 0:
		p.clauses = cs
	default:
		p.clauses = append(slices.Clip(p.clauses), cs...)
	}
	return p
}
