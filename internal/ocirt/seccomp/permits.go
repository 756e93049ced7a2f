package seccomp

import "golang.org/x/sys/unix"

// Permits tells whether the filter lets a call of the native interface through,
// without telling anybody but the log. It answers for arguments known in
// advance, by running the filter the way the kernel does.
func (p *Program) Permits(nr uintptr, args ...uint64) bool {
	arches := native()
	if len(arches) == 0 {
		return false
	}
	var all [6]uint64
	copy(all[:], args)
	v, ok := evaluate(p.Filter, uint32(nr), arches[0].audit, &all)
	return ok && (v.action() == allow || v.action() == logged)
}

// evaluate runs the instructions assemble emits; false for any other.
func evaluate(prog []unix.SockFilter, nr, audit uint32, args *[6]uint64) (verdict, bool) {
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		yes := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch {
			case i.K == offsetNr:
				acc = nr
			case i.K == offsetArch:
				acc = audit
			case i.K%4 == 0 && i.K >= offsetArgs && i.K < offsetArgs+48:
				acc = uint32(args[(i.K-offsetArgs)/8] >> (i.K % 8 * 8))
			default:
				return 0, false
			}
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= i.K
			continue
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_RET | unix.BPF_K:
			return verdict(i.K), true
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = acc == i.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			yes = acc > i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = acc >= i.K
		default:
			return 0, false
		}
		if yes {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	return 0, false
}
