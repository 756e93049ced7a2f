package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data. Both architectures are little endian.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

func load(offset int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(offset)}
}

func jump(op uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: uint8(yes), Jf: uint8(no), K: k}
}

func skip(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}

func ret(v verdict) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(v)}
}

// armPrivate is the first number of the calls only 32-bit ARM has.
const armPrivate = 0x0f0000

// far is the longest jump a condition can make.
const far = 255

// assemble lays the program out: one search tree per AUDIT_ARCH, native first.
// It is written from the end to the start, because a jump has to know how much
// comes after it.
func (p *profile) assemble() []unix.SockFilter {
	tables := p.policies()
	back := make([]unix.SockFilter, 0, 1024)
	back = append(back, ret(killProcess))
	for i, a := range slices.Backward(p.arches) {
		if a.bit != 0 {
			continue // in the tree of its sibling
		}
		after := len(back)
		back = tree(back, p.spans(i, tables))
		back = append(back, load(offsetNr))
		if body := len(back) - after; body <= far {
			back = append(back, jump(unix.BPF_JEQ, a.audit, 0, body))
		} else {
			back = append(back, skip(body), jump(unix.BPF_JEQ, a.audit, 1, 0))
		}
	}
	back = append(back, load(offsetArch))
	slices.Reverse(back)
	return back
}

// span is a run of numbers, up to the next span, that fare alike.
type span struct {
	from   uint32
	policy policy
}

// spans cuts all 2^32 numbers into runs that fare alike, for the architecture at
// index i and the one that shares its AUDIT_ARCH.
func (p *profile) spans(i int, tables [][]numbered) []span {
	if p.arches[i].audit != unix.AUDIT_ARCH_X86_64 {
		return p.region(nil, tables[i], 0, 1<<32)
	}
	s := p.region(nil, tables[i], 0, x32Bit)
	x32 := slices.IndexFunc(p.arches, func(a arch) bool { return a.bit == x32Bit })
	switch {
	case x32 >= 0:
		s = p.region(s, tables[x32], x32Bit, 1<<32-1)
	case p.otherwise.action() == fail:
		s = join(s, x32Bit, policy{otherwise: noSuchCall})
	default:
		// x32 is another way to the same calls: no profile for amd64 alone may
		// be got round by it.
		s = join(s, x32Bit, policy{otherwise: killProcess})
	}
	// -1 is what a tracer makes of a call it wants to leave out.
	return join(s, 1<<32-1, policy{otherwise: p.otherwise})
}

// region appends the spans of the numbers from start up to end. Those above the
// highest one named are newer than the profile.
func (p *profile) region(s []span, table []numbered, start uint32, end uint64) []span {
	def := policy{otherwise: p.otherwise}
	s = join(s, start, def)
	last := newest(table)
	for _, n := range table {
		s = join(s, n.nr, n.policy)
		if uint64(n.nr)+1 == end {
			break
		}
		after := def
		if n.nr >= last && p.otherwise.restrictive() {
			after = policy{otherwise: noSuchCall}
		}
		s = join(s, n.nr+1, after)
	}
	return s
}

// newest is the highest number of those the kernel gives out one after the
// other; what is private to 32-bit ARM lies far above.
func newest(sorted []numbered) (last uint32) {
	for _, n := range sorted {
		if n.nr&^uint32(x32Bit) < armPrivate {
			last = n.nr
		}
	}
	return last
}

// join appends a span unless it goes on as the one before.
func join(s []span, from uint32, pol policy) []span {
	if n := len(s); n > 0 {
		if s[n-1].from == from {
			s = s[:n-1]
			return join(s, from, pol)
		}
		if s[n-1].policy.equal(pol) {
			return s
		}
	}
	return append(s, span{from, pol})
}

// tree appends, from its end to its start, a binary search for the span of the
// number in the accumulator.
func tree(back []unix.SockFilter, s []span) []unix.SockFilter {
	if len(s) == 1 {
		return s[0].policy.leaf(back)
	}
	mid := len(s) / 2
	back, above := branch(back, s[mid:], 1)
	back, below := branch(back, s[:mid], 0)
	yes, no := len(back)-1-above, len(back)-1-below
	if yes <= far {
		return append(back, jump(unix.BPF_JGE, s[mid].from, yes, no))
	}
	return append(back, skip(yes), jump(unix.BPF_JGE, s[mid].from, 0, no+1))
}

// branch makes sure that there is code for a half of a search, and returns where.
// The kernel takes as long for a filter as it is long, each time a process gets
// it: halves that only return share an instruction where a jump reaches it, after
// at most so many instructions that are still to come.
func branch(back []unix.SockFilter, s []span, coming int) (_ []unix.SockFilter, at int) {
	if len(s) == 1 && len(s[0].policy.clauses) == 0 {
		want := ret(s[0].policy.otherwise)
		for i := len(back) - 1; i >= 0 && len(back)-i+coming < far; i-- {
			if back[i] == want {
				return back, i
			}
		}
	}
	back = tree(back, s)
	return back, len(back) - 1
}

// leaf appends, from its end to its start, what tries the clauses one after the
// other.
func (p policy) leaf(back []unix.SockFilter) []unix.SockFilter {
	back = append(back, ret(p.otherwise))
	for _, c := range slices.Backward(p.clauses) {
		after := len(back)
		back = append(back, ret(c.then))
		for _, cond := range slices.Backward(c.conds) {
			code := test(cond, p.narrow, len(back)-after)
			slices.Reverse(code)
			back = append(back, code...)
		}
	}
	return back
}

// test compares one argument. It falls through when the condition holds and
// else jumps over what comes after: rest instructions.
func test(c specs.LinuxSeccompArg, narrow bool, rest int) []unix.SockFilter {
	lo, hi := load(offsetArgs+8*int(c.Index)), load(offsetArgs+8*int(c.Index)+4)
	vlo, vhi := uint32(c.Value), uint32(c.Value>>32)
	if narrow {
		return append([]unix.SockFilter{lo}, testLow(c, rest)...)
	}
	switch c.Op {
	case specs.OpEqualTo:
		return []unix.SockFilter{
			hi, jump(unix.BPF_JEQ, vhi, 0, 2+rest),
			lo, jump(unix.BPF_JEQ, vlo, 0, rest),
		}
	case specs.OpNotEqual:
		return []unix.SockFilter{
			hi, jump(unix.BPF_JEQ, vhi, 0, 2),
			lo, jump(unix.BPF_JEQ, vlo, rest, 0),
		}
	case specs.OpMaskedEqual:
		and := func(k uint32) unix.SockFilter {
			return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
		}
		return []unix.SockFilter{
			hi, and(vhi), jump(unix.BPF_JEQ, uint32(c.ValueTwo>>32), 0, 3+rest),
			lo, and(vlo), jump(unix.BPF_JEQ, uint32(c.ValueTwo), 0, rest),
		}
	}
	// Of the ordered ones, the high half decides unless it is equal.
	if c.Op == specs.OpGreaterThan || c.Op == specs.OpGreaterEqual {
		return append([]unix.SockFilter{
			hi, jump(unix.BPF_JGT, vhi, 3, 0), jump(unix.BPF_JEQ, vhi, 0, 2+rest), lo,
		}, testLow(c, rest)...)
	}
	return append([]unix.SockFilter{
		hi, jump(unix.BPF_JGT, vhi, 3+rest, 0), jump(unix.BPF_JEQ, vhi, 0, 2), lo,
	}, testLow(c, rest)...)
}

// testLow compares the low half in the accumulator. It is one instruction,
// except for masks.
func testLow(c specs.LinuxSeccompArg, rest int) []unix.SockFilter {
	v := uint32(c.Value)
	switch c.Op {
	case specs.OpNotEqual:
		return []unix.SockFilter{jump(unix.BPF_JEQ, v, rest, 0)}
	case specs.OpGreaterThan:
		return []unix.SockFilter{jump(unix.BPF_JGT, v, 0, rest)}
	case specs.OpGreaterEqual:
		return []unix.SockFilter{jump(unix.BPF_JGE, v, 0, rest)}
	case specs.OpLessThan:
		return []unix.SockFilter{jump(unix.BPF_JGE, v, rest, 0)}
	case specs.OpLessEqual:
		return []unix.SockFilter{jump(unix.BPF_JGT, v, rest, 0)}
	case specs.OpMaskedEqual:
		return []unix.SockFilter{
			{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: v},
			jump(unix.BPF_JEQ, uint32(c.ValueTwo), 0, rest),
		}
	}
	return []unix.SockFilter{jump(unix.BPF_JEQ, v, 0, rest)}
}
