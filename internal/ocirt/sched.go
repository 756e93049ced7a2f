package ocirt

import (
	"strconv"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/spawn"
)

func (b *builder) setScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	switch s.Policy {
	case specs.SchedOther, "":
		attr.Policy = unix.SCHED_NORMAL
	case specs.SchedFIFO:
		attr.Policy = unix.SCHED_FIFO
	case specs.SchedRR:
		attr.Policy = unix.SCHED_RR
	case specs.SchedBatch:
		attr.Policy = unix.SCHED_BATCH
	case specs.SchedIdle:
		attr.Policy = unix.SCHED_IDLE
	case specs.SchedDeadline:
		attr.Policy = unix.SCHED_DEADLINE
	default:
		return errs.InvalidArgument("unknown scheduling policy %q", s.Policy)
	}
	for _, f := range s.Flags {
		bit, ok := schedulerFlag(f)
		if !ok {
			return errs.InvalidArgument("unknown scheduling flag %q", f)
		}
		attr.Flags |= bit
	}
	b.Doing("set", "scheduling policy "+string(s.Policy))
	b.Sys(unix.SYS_SCHED_SETATTR, spawn.Int(0), b.Struct(unsafe.Pointer(&attr), unsafe.Sizeof(attr)), spawn.Int(0))
	return nil
}

func schedulerFlag(f specs.LinuxSchedulerFlag) (uint64, bool) {
	switch f {
	case specs.SchedFlagResetOnFork:
		return unix.SCHED_FLAG_RESET_ON_FORK, true
	case specs.SchedFlagReclaim:
		return unix.SCHED_FLAG_RECLAIM, true
	case specs.SchedFlagDLOverrun:
		return unix.SCHED_FLAG_DL_OVERRUN, true
	case specs.SchedFlagKeepPolicy:
		return unix.SCHED_FLAG_KEEP_POLICY, true
	case specs.SchedFlagKeepParams:
		return unix.SCHED_FLAG_KEEP_PARAMS, true
	case specs.SchedFlagUtilClampMin:
		return unix.SCHED_FLAG_UTIL_CLAMP_MIN, true
	case specs.SchedFlagUtilClampMax:
		return unix.SCHED_FLAG_UTIL_CLAMP_MAX, true
	}
	return 0, false
}

func (b *builder) setIOPriority(p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	const whoProcess, classShift = 1, 13 // include/uapi/linux/ioprio.h
	var class int
	switch p.Class {
	case specs.IOPRIO_CLASS_RT:
		class = 1
	case specs.IOPRIO_CLASS_BE:
		class = 2
	case specs.IOPRIO_CLASS_IDLE:
		class = 3
	default:
		return errs.InvalidArgument("unknown I/O priority class %q", p.Class)
	}
	if p.Priority < 0 || p.Priority > 7 {
		return errs.InvalidArgument("I/O priority %d is not between 0 and 7", p.Priority)
	}
	b.Doing("set", "I/O priority")
	b.Sys(unix.SYS_IOPRIO_SET, spawn.Int(whoProcess), spawn.Int(0), spawn.Int(class<<classShift|p.Priority))
	return nil
}

func (b *builder) setPersonality() error {
	if b.spec.Linux == nil || b.spec.Linux.Personality == nil {
		return nil
	}
	p := b.spec.Linux.Personality
	var persona int
	switch p.Domain {
	case specs.PerLinux:
	case specs.PerLinux32:
		persona = 8
	default:
		return errs.InvalidArgument("unknown personality domain %q", p.Domain)
	}
	if len(p.Flags) > 0 {
		return errs.InvalidArgument("personality flags are not defined by the specification")
	}
	b.Doing("set", "personality "+string(p.Domain))
	b.Sys(unix.SYS_PERSONALITY, spawn.Int(persona))
	return nil
}

// setMemoryPolicy is set_mempolicy(2) with the modes of linux/mempolicy.h.
func (b *builder) setMemoryPolicy() error {
	if b.spec.Linux == nil || b.spec.Linux.MemoryPolicy == nil {
		return nil
	}
	p := b.spec.Linux.MemoryPolicy
	modes := []string{"MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"}
	mode := -1
	for i, name := range modes {
		if string(p.Mode) == name {
			mode = i
		}
	}
	if mode < 0 {
		return errs.InvalidArgument("unknown memory policy %q", p.Mode)
	}
	for _, f := range p.Flags {
		switch f {
		case "MPOL_F_NUMA_BALANCING":
			mode |= 1 << 13
		case "MPOL_F_RELATIVE_NODES":
			mode |= 1 << 14
		case "MPOL_F_STATIC_NODES":
			mode |= 1 << 15
		default:
			return errs.InvalidArgument("unknown memory policy flag %q", f)
		}
	}
	mask, err := parseList(p.Nodes)
	if err != nil {
		return err
	}
	b.Doing("set", "memory policy "+string(p.Mode))
	nodes, bits := spawn.Int(0), 0
	if p.Nodes != "" {
		nodes, bits = b.Struct(unsafe.Pointer(&mask), unsafe.Sizeof(mask)), listBits+1
	}
	b.Sys(unix.SYS_SET_MEMPOLICY, spawn.Int(mode), nodes, spawn.Int(bits))
	return nil
}

const listBits = 1024

// parseList reads a list of CPUs or nodes as the kernel writes them: "0-3,7".
func parseList(s string) (mask [listBits / 64]uint64, err error) {
	if strings.TrimSpace(s) == "" {
		return mask, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && isRange {
			last, err = strconv.Atoi(to)
		}
		if err != nil || first < 0 || last < first || last >= listBits {
			return mask, errs.InvalidArgument("invalid list %q", s)
		}
		for i := first; i <= last; i++ {
			mask[i/64] |= 1 << (i % 64)
		}
	}
	return mask, nil
}

// setAffinity binds the process to CPUs; "" leaves it as it is.
func (b *builder) setAffinity(list string) error {
	if list == "" {
		return nil
	}
	mask, err := parseList(list)
	if err != nil {
		return err
	}
	b.Doing("set", "CPU affinity "+list)
	b.Sys(unix.SYS_SCHED_SETAFFINITY, spawn.Int(0), spawn.Int(int(unsafe.Sizeof(mask))), b.Struct(unsafe.Pointer(&mask), unsafe.Sizeof(mask)))
	return nil
}
