package cgroup

import (
	"maps"
	"math/rand/v2"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// run interprets a device program: 1 allows, 0 denies.
func run(t *testing.T, prog []insn, kind byte, major, minor int64, access perm) bool {
	t.Helper()
	typ := uint32(2)
	if kind == 'b' {
		typ = 1
	}
	ctx := map[int16]uint32{0: uint32(access)<<16 | typ, 4: uint32(major), 8: uint32(minor)}
	var reg [11]int64
	for pc, steps := 0, 0; ; pc, steps = pc+1, steps+1 {
		if pc < 0 || pc >= len(prog) || steps > len(prog) {
			t.Fatalf("the program runs out of its end at %d", pc)
		}
		i := prog[pc]
		dst := i.regs & 0xf
		switch i.code {
		case opLoad32:
			reg[dst] = int64(ctx[i.off])
		case opAnd32:
			reg[dst] = int64(uint32(reg[dst]) & uint32(i.imm))
		case opShift32:
			reg[dst] = int64(uint32(reg[dst]) >> i.imm)
		case opMove:
			reg[dst] = int64(i.imm)
		case opJumpNE:
			if reg[dst] != int64(i.imm) {
				pc += int(i.off)
			}
		case opJumpSet:
			if reg[dst]&int64(i.imm) != 0 {
				pc += int(i.off)
			}
		case opJump:
			pc += int(i.off)
		case opExit:
			return reg[regResult] == 1
		default:
			t.Fatalf("unknown instruction %#x", i.code)
		}
	}
}

// allowed evaluates rules in which later ones win, bit by bit.
func allowed(rules []rule, kind byte, major, minor int64, access perm) bool {
	for bit := permMknod; bit <= permWrite; bit <<= 1 {
		if access&bit == 0 {
			continue
		}
		ok := false
		for _, r := range rules {
			if r.all() || r.perm&bit != 0 && r.device.covers(device{kind, major, minor}) {
				ok = r.allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

func randomRules(r *rand.Rand) []rule {
	var list []specs.LinuxDeviceCgroup
	num := func() *int64 {
		if n := r.Int64N(4); n > 0 {
			return ptr(n)
		}
		return nil
	}
	for range r.IntN(6) {
		d := specs.LinuxDeviceCgroup{Allow: r.IntN(2) == 0, Type: []string{"c", "b", "a", ""}[r.IntN(4)], Access: []string{"rwm", "r", "w", "m", "rw"}[r.IntN(5)]}
		if d.Type == "c" || d.Type == "b" || r.IntN(3) == 0 {
			d.Major, d.Minor = num(), num()
		}
		list = append(list, d)
	}
	rules, err := parseRules(list)
	if err != nil {
		panic(err)
	}
	return rules
}

// A wrong program lets a container at the disks of its host.
func TestDeviceProgram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		rules := randomRules(r)
		prog := deviceProgram(rules)
		for _, kind := range []byte("bc") {
			for major := range int64(5) {
				for minor := range int64(5) {
					for access := permMknod; access <= permAll; access++ {
						got, want := run(t, prog, kind, major, minor, access), allowed(rules, kind, major, minor, access)
						if got != want {
							t.Fatalf("%c %d:%d %s: program says %v, rules say %v\n%v", kind, major, minor, access, got, want, rules)
						}
					}
				}
			}
		}
	}
}

// What v1 is told must mean what the rules mean, or be refused.
func TestCanonicalIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	kept := 0
	for range 500 {
		rules := randomRules(r)
		s, err := canonical(rules)
		if err != nil {
			continue
		}
		kept++
		for _, kind := range []byte("bc") {
			for major := range int64(5) {
				for minor := range int64(5) {
					for bit := permMknod; bit <= permWrite; bit <<= 1 {
						got := s.allow
						for d, p := range s.except {
							if p&bit != 0 && d.covers(device{kind, major, minor}) {
								got = !s.allow
							}
						}
						if want := allowed(rules, kind, major, minor, bit); got != want {
							t.Fatalf("%c %d:%d %s: %v, rules say %v\n%v\n%v", kind, major, minor, bit, got, want, rules, s)
						}
					}
				}
			}
		}
	}
	if kept < 100 {
		t.Errorf("only %d of 500 rule lists could be expressed", kept)
	}
}

func TestParseRuleRefuses(t *testing.T) {
	for _, d := range []specs.LinuxDeviceCgroup{
		{Type: "p"}, {Type: "c", Access: "rx"}, {Type: "c", Access: "r", Major: ptr(int64(-2))}, {Type: "c", Access: "r", Minor: ptr(int64(1 << 40))},
	} {
		if _, err := parseRules([]specs.LinuxDeviceCgroup{d}); err == nil {
			t.Errorf("%+v was accepted", d)
		}
	}
}

func TestParseDeviceList(t *testing.T) {
	got := parseDeviceList("c *:* m\nc 1:3 rwm\nc 136:* rw\n")
	want := map[device]perm{{'c', wild, wild}: permMknod, {'c', 1, 3}: permAll, {'c', 136, wild}: permRead | permWrite}
	if got.allow || !maps.Equal(got.except, want) {
		t.Errorf("got %+v", got)
	}
	if !parseDeviceList("a *:* rwm\n").allow {
		t.Error("allow-all was not recognised")
	}
}
