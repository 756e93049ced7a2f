package spawn

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const maxRegs = 1000

// page is the memory parent and child share (two pages of the machine, really).
type page struct {
	step  int32 // the child is at this step
	errno int32 // and failed there with this; 0 while it runs
	pid   int64 // of the process made by opFork, in the pid namespace of the parent
	offer int64 // a descriptor the parent is to take, plus one
	taken int64 // 1 when it has
	alone int64 // 1 when the child has detached itself
	open  int64 // 1 when the parent has done what the child waits for at a gate
	regs  [maxRegs]int64
}

// pages are the shared pages that are free.
var pages struct {
	sync.Mutex
	free []*page
}

func newPage() (*page, error) {
	pages.Lock()
	defer pages.Unlock()
	if n := len(pages.free); n > 0 {
		pg := pages.free[n-1]
		pages.free = pages.free[:n-1]
		return pg, nil
	}
	mem, err := unix.MmapPtr(-1, 0, nil, unsafe.Sizeof(page{}), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	return (*page)(mem), err
}

// release gives back a page no child maps any more.
func (pg *page) release() {
	*pg = page{}
	pages.Lock()
	pages.free = append(pages.free, pg)
	pages.Unlock()
}

func (pg *page) unmap() { _ = unix.MunmapPtr(unsafe.Pointer(pg), unsafe.Sizeof(*pg)) }
