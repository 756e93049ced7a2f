package spawn

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lean says that Lean was called.
var lean atomic.Bool

// Lean makes all later children start without a copy of this process's memory:
// they get their program and the code, and neither other programs nor the data
// segment, which nothing in run looks at. Copying page tables is most of what a fork costs; what was
// copied costs a fault for each page this process writes to afterwards; and what a
// child does not have nobody can read from it. A fork must then not be done by anything but this package; os/exec shares
// memory instead, and is not concerned. In a program with the C library it does
// nothing.
func Lean() { lean.Store(!withC) }

// heap is what is known of the memory of the Go runtime.
var heap struct {
	sync.Mutex
	statm  *os.File
	marked []byte // statm's count of writable pages when the marks were set
}

// keepHeap marks the memory of the runtime as not to be copied, where that has
// grown since the last time. What cannot be marked is copied as ever. It is
// called with syscall.ForkLock held: nobody forks between the two kinds of marks.
func keepHeap() {
	if !lean.Load() {
		return
	}
	heap.Lock()
	defer heap.Unlock()
	if heap.statm == nil {
		f, err := os.Open("/proc/self/statm")
		if err != nil {
			return
		}
		heap.statm = f
	}
	var buf [128]byte
	n, err := unix.Pread(int(heap.statm.Fd()), buf[:], 0)
	fields := bytes.Fields(buf[:max(n, 0)])
	if err != nil || len(fields) < 6 || bytes.Equal(fields[5], heap.marked) {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	heap.marked = append(heap.marked[:0], fields[5]...)
	for _, b := range runtimeMemory(maps) {
		b.advise(unix.MADV_DONTFORK)
	}
}

// lend lets the next child have the memory of its program. It is called like
// keepHeap, and what it returns after the fork.
func (a *arena) lend() (takeBack func()) {
	if !lean.Load() {
		return func() {}
	}
	a.advise(unix.MADV_DOFORK)
	return func() { a.advise(unix.MADV_DONTFORK) }
}

func (a *arena) advise(advice int) {
	for _, c := range a.blocks {
		if !c.shared {
			c.block.advise(advice)
		}
	}
}

func (b block) advise(advice int) {
	_ = unix.Madvise(unsafe.Slice((*byte)(pointer(b.addr)), b.size), advice)
}

// runtimeMemory finds the mappings in /proc/PID/maps that are the runtime's: its
// data segment, the first thread's stack, and what is private, anonymous and
// without a name but one of the runtime's own ("[anon: Go: heap]", where the kernel
// keeps such names). Programs are among them.
func runtimeMemory(maps []byte) (found []block) {
	for line := range bytes.Lines(maps) {
		f := bytes.Fields(line)
		if len(f) < 5 {
			continue
		}
		first, last, _ := bytes.Cut(f[0], []byte("-"))
		from, err1 := strconv.ParseUint(string(first), 16, 64)
		to, err2 := strconv.ParseUint(string(last), 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		data := len(f) > 5 && (f[5][0] == '/' || string(f[5]) == "[stack]") && string(f[1]) == "rw-p"
		if data || (len(f) == 5 || string(f[5]) == "[anon:") && len(f[1]) == 4 && f[1][3] == 'p' {
			found = append(found, block{uintptr(from), uintptr(to - from)})
		}
	}
	return found
}
