package cgroup

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// insn is one eBPF instruction as the kernel takes it (struct bpf_insn).
type insn struct {
	code uint8
	regs uint8 // destination in the low half, source in the high one
	off  int16
	imm  int32
}

// The registers of the device program. r1 is the context the kernel hands over.
const (
	regResult = 0 // r0: 1 allows, 0 denies
	regCtx    = 1
	regType   = 2
	regAccess = 3 // accesses no rule has decided on yet
	regMajor  = 4
	regMinor  = 5
)

const (
	opLoad32  = 0x61 // dst = *(u32 *)(src + off)
	opAnd32   = 0x54 // dst &= imm
	opShift32 = 0x74 // dst >>= imm
	opMove    = 0xb7 // dst = imm
	opJumpNE  = 0x55 // if dst != imm goto +off
	opJumpSet = 0x45 // if dst & imm goto +off
	opJump    = 0x05 // goto +off
	opExit    = 0x95
)

func verdict(allow bool) []insn {
	i := insn{code: opMove, regs: regResult}
	if allow {
		i.imm = 1
	}
	return []insn{i, {code: opExit}}
}

// deviceProgram compiles rules, in which later ones win, into a program of type
// BPF_PROG_TYPE_CGROUP_DEVICE. It looks at the last rule first. An access to
// read and write may be granted by two rules, one for each.
func deviceProgram(rules []rule) []insn {
	load := func(dst uint8, off int16) insn { return insn{code: opLoad32, regs: regCtx<<4 | dst, off: off} }
	prog := []insn{
		// struct bpf_cgroup_dev_ctx: access<<16 | type, major, minor
		load(regType, 0),
		load(regAccess, 0),
		load(regMajor, 4),
		load(regMinor, 8),
		{code: opAnd32, regs: regType, imm: 0xffff},
		{code: opShift32, regs: regAccess, imm: 16},
	}
	for _, r := range slices.Backward(rules) {
		if r.all() {
			return append(prog, verdict(r.allow)...)
		}
		prog = append(prog, ruleProgram(r)...)
	}
	return append(prog, verdict(false)...)
}

// ruleProgram is the part for one rule; it falls through when the rule decides
// nothing.
func ruleProgram(r rule) []insn {
	var body []insn
	if r.allow {
		body = append(body,
			insn{code: opAnd32, regs: regAccess, imm: int32(permAll &^ r.perm)},
			insn{code: opJumpNE, regs: regAccess, off: 2})
	} else {
		body = append(body,
			insn{code: opJumpSet, regs: regAccess, off: 1, imm: int32(r.perm)},
			insn{code: opJump, off: 2})
	}
	body = append(body, verdict(r.allow)...)

	kind := int32(2) // BPF_DEVCG_DEV_CHAR
	if r.kind == 'b' {
		kind = 1 // BPF_DEVCG_DEV_BLOCK
	}
	var part []insn
	if r.minor != wild {
		part = append(part, insn{code: opJumpNE, regs: regMinor, imm: int32(r.minor)})
	}
	if r.major != wild {
		part = append(part, insn{code: opJumpNE, regs: regMajor, imm: int32(r.major)})
	}
	part = append(part, insn{code: opJumpNE, regs: regType, imm: kind})
	for i := range part { // past the body
		part[i].off = int16(len(part) - 1 - i + len(body))
	}
	return append(part, body...)
}

// setDeviceProgram makes prog the only device program of a v2 cgroup. The
// exchange is one step: there is no moment without a program.
func setDeviceProgram(dir string, prog []insn) error {
	cg, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", dir, err)
	}
	defer unix.Close(cg)
	fd, err := loadProgram(prog)
	if err != nil {
		return fmt.Errorf("cannot load the device program of %s: %w", dir, err)
	}
	defer unix.Close(fd)
	old, err := attachedPrograms(cg)
	if err != nil {
		return fmt.Errorf("cannot list the device programs of %s: %w", dir, err)
	}
	defer func() {
		for _, o := range old {
			_ = unix.Close(o)
		}
	}()
	if len(old) == 1 {
		err = attach(cg, fd, unix.BPF_F_ALLOW_MULTI|unix.BPF_F_REPLACE, old[0])
		if err == nil {
			return nil
		}
		// Kernels before 5.6 know no replacing: with both attached, what both
		// allow stays allowed.
	}
	if err := attach(cg, fd, unix.BPF_F_ALLOW_MULTI, 0); err != nil {
		return fmt.Errorf("cannot attach the device program to %s: %w", dir, err)
	}
	for _, o := range old {
		if err := detach(cg, o); err != nil {
			return fmt.Errorf("cannot detach the old device program of %s: %w", dir, err)
		}
	}
	return nil
}

// bpf is the system call; attr points to size bytes of union bpf_attr.
func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		if errno == 0 {
			return int(r), nil
		}
		if !errors.Is(errno, unix.EINTR) && !errors.Is(errno, unix.EAGAIN) {
			return -1, errno
		}
	}
}

func loadProgram(prog []insn) (fd int, err error) {
	license := []byte("Apache-2.0\x00")
	attr := struct {
		progType, count uint32
		insns, license  uint64
		logLevel, size  uint32
		log             uint64
		version, flags  uint32
	}{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:    uint32(len(prog)),
		insns:    uint64(uintptr(unsafe.Pointer(&prog[0]))),
		license:  uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	return fd, err
}

type attachAttr struct{ target, prog, attachType, flags, replace uint32 }

func attach(cg, prog int, flags uint32, replace int) error {
	attr := attachAttr{uint32(cg), uint32(prog), unix.BPF_CGROUP_DEVICE, flags, uint32(replace)}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func detach(cg, prog int) error {
	attr := attachAttr{target: uint32(cg), prog: uint32(prog), attachType: unix.BPF_CGROUP_DEVICE}
	_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// attachedPrograms opens the device programs attached to a cgroup itself.
func attachedPrograms(cg int) (fds []int, err error) {
	ids := make([]uint32, 64)
	attr := struct {
		target, attachType, flags, attachFlags uint32
		ids                                    uint64
		count, _                               uint32
	}{
		target:     uint32(cg),
		attachType: unix.BPF_CGROUP_DEVICE,
		ids:        uint64(uintptr(unsafe.Pointer(&ids[0]))),
		count:      uint32(len(ids)),
	}
	_, err = bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids[:attr.count] {
		get := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
		if err != nil {
			for _, f := range fds {
				_ = unix.Close(f)
			}
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
