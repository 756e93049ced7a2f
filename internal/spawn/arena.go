package spawn

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arena is the memory a program lives in: its steps, their arguments and the
// stack of the child. It is not the heap of Go, which the child may have no copy
// of (see Lean): addresses in it stay valid until release.
type arena struct {
	blocks []block
	used   uintptr // of the last block
}

// block is mapped memory, page aligned and private.
type block struct{ addr, size uintptr }

const blockSize = 64 << 10

// blocks is the memory of all programs.
var blocks struct {
	sync.Mutex
	all  map[uintptr]uintptr // size by address
	idle []block             // of the usual size and free, a few
}

const maxIdle = 8

func newBlock(size uintptr) block {
	blocks.Lock()
	defer blocks.Unlock()
	if n := len(blocks.idle); n > 0 && size == blockSize {
		b := blocks.idle[n-1]
		blocks.idle = blocks.idle[:n-1]
		return b
	}
	mem, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Sprintf("spawn: out of memory: cannot map %d bytes: %v", size, err))
	}
	if blocks.all == nil {
		blocks.all = map[uintptr]uintptr{}
	}
	blocks.all[uintptr(mem)] = size
	return block{uintptr(mem), size}
}

func (b block) release() {
	blocks.Lock()
	defer blocks.Unlock()
	if b.size == blockSize && len(blocks.idle) < maxIdle {
		// What one program was told is not for the child of the next.
		clear(unsafe.Slice((*byte)(pointer(b.addr)), b.size))
		blocks.idle = append(blocks.idle, b)
		return
	}
	delete(blocks.all, b.addr)
	_ = unix.MunmapPtr(pointer(b.addr), b.size)
}

// alloc returns the address of n zero bytes, aligned to 16.
func (a *arena) alloc(n int) uintptr {
	size := (uintptr(n) + 15) &^ 15
	if last := len(a.blocks) - 1; last < 0 || a.used+size > a.blocks[last].size {
		a.blocks = append(a.blocks, newBlock(max(blockSize, (size+blockSize-1)&^(blockSize-1))))
		a.used = 0
	}
	p := a.blocks[len(a.blocks)-1].addr + a.used
	clear(unsafe.Slice((*byte)(pointer(p)), size))
	a.used += size
	return p
}

func (a *arena) bytes(b []byte) uintptr {
	p := a.alloc(max(len(b), 1))
	copy(unsafe.Slice((*byte)(pointer(p)), len(b)), b)
	return p
}

func (a *arena) str(s string) uintptr {
	p := a.alloc(len(s) + 1)
	copy(unsafe.Slice((*byte)(pointer(p)), len(s)), s)
	return p
}

// release gives the memory back. Every address becomes invalid.
func (a *arena) release() {
	for _, b := range a.blocks {
		b.release()
	}
	*a = arena{}
}

// pointer turns an address of the arena, or of the memory parent and child
// share, back into a pointer. Both kinds of memory neither move nor go away
// while a program exists.
//
//go:nosplit
func pointer(addr uintptr) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(nil), addr) }
