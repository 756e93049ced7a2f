package spawn

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Forget has the child give up all memory of its parent but what the rest of the
// program needs: until execve it would have a copy of everything that the parent
// knows. It is for a child that is about to be seen by those who may read the
// memory of others. A lean one has no such copy.
func (p *Program) Forget() {
	if lean.Load() {
		return
	}
	p.forget = p.mem.alloc(int(unsafe.Sizeof(forgetArgs{})))
	p.Sys(opForget, Arg{v: p.forget})
}

// span is a range of addresses, of whole pages.
type span struct{ from, to uintptr }

// forgetArgs are what the child gives up.
type forgetArgs struct {
	list uintptr // of spans
	n    int
}

// planForget finds out what there is to give up: all but the program itself,
// which the child's stack is a part of. What is mapped after it was looked at is
// not given up; nothing of use is in there yet.
func (p *Program) planForget() error {
	if p.forget == 0 {
		return nil
	}
	// Room for the list itself is taken before, as it has to be kept too.
	const room = 512
	list := p.mem.alloc(room * int(unsafe.Sizeof(span{})))
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	keep := make([]span, len(p.mem.blocks))
	for i, b := range p.mem.blocks {
		keep[i] = span{b.addr, b.addr + b.size}
	}
	spans := subtract(privateMemory(text), keep)
	spans = spans[:min(len(spans), room)]
	copy(unsafe.Slice((*span)(pointer(list)), room), spans)
	*(*forgetArgs)(pointer(p.forget)) = forgetArgs{list, len(spans)}
	return nil
}

// privateMemory lists the memory of proc_pid_maps(5) that is written to and
// shared with no file and no process.
func privateMemory(maps []byte) (list []span) {
	for line := range bytes.Lines(maps) {
		f := bytes.Fields(line)
		if len(f) < 5 || string(f[1]) != "rw-p" || string(f[4]) != "0" {
			continue
		}
		from, to, _ := bytes.Cut(f[0], []byte{'-'})
		a, err := strconv.ParseUint(string(from), 16, 64)
		b, err2 := strconv.ParseUint(string(to), 16, 64)
		if err == nil && err2 == nil {
			list = append(list, span{uintptr(a), uintptr(b)})
		}
	}
	return list
}

// subtract returns the parts of the list that are not kept.
func subtract(list, keep []span) (out []span) {
	slices.SortFunc(keep, func(a, b span) int { return int(int64(a.from) - int64(b.from)) })
	for _, s := range list {
		for _, k := range keep {
			if k.to <= s.from || k.from >= s.to {
				continue
			}
			if k.from > s.from {
				out = append(out, span{s.from, k.from})
			}
			s.from = k.to
			if s.from >= s.to {
				break
			}
		}
		if s.from < s.to {
			out = append(out, s)
		}
	}
	return out
}

// forget gives up the memory.
//
//go:nosplit
//go:norace
func forget(args *forgetArgs) syscall.Errno {
	for i := 0; i < args.n; i++ {
		s := (*span)(pointer(args.list + uintptr(i)*unsafe.Sizeof(span{})))
		_, _, e := syscall.RawSyscall6(unix.SYS_MADVISE, s.from, s.to-s.from, unix.MADV_DONTNEED, 0, 0, 0)
		if e != 0 && e != unix.ENOMEM { // ENOMEM: parts of it the child does not have at all (Lean)
			return e
		}
	}
	return 0
}
