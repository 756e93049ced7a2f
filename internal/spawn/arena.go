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
	blocks []chunk
}

// chunk is a block in use: told things from its start on, and blank for the
// child's own use at its end, where this process writes nothing.
type chunk struct {
	block
	told, blank uintptr // bytes
	shared      bool    // with a spare process, which reads what it is told later
}

// block is mapped memory, page aligned and private. It is zero when it is new:
// nobody has to touch it to make it so, which after a fork would cost a fault for
// each page.
type block struct{ addr, size uintptr }

const blockSize = 64 << 10

// blocks are those that are free.
var blocks struct {
	sync.Mutex
	idle []block // of the usual size, a few
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
	b := block{uintptr(mem), size}
	if lean.Load() {
		b.advise(unix.MADV_DONTFORK) // but for its own child; see lend
	}
	return b
}

// release gives back a block of which the first told bytes were written to.
func (b block) release(told uintptr) {
	blocks.Lock()
	defer blocks.Unlock()
	if b.size == blockSize && len(blocks.idle) < maxIdle {
		// What one program was told is not for the child of the next.
		clear(unsafe.Slice((*byte)(pointer(b.addr)), told))
		blocks.idle = append(blocks.idle, b)
		return
	}
	_ = unix.MunmapPtr(pointer(b.addr), b.size)
}

// alloc returns the address of n zero bytes, aligned to 16.
func (a *arena) alloc(n int) uintptr {
	c, size := a.room(n)
	p := c.addr + c.told
	c.told += size
	return p
}

// scratch is alloc for what only the child writes to.
func (a *arena) scratch(n int) uintptr {
	c, size := a.room(n)
	c.blank += size
	return c.addr + c.size - c.blank
}

// room returns a chunk with room for n bytes, and how many that are when aligned.
func (a *arena) room(n int) (c *chunk, size uintptr) {
	size = (uintptr(n) + 15) &^ 15
	if last := len(a.blocks) - 1; last >= 0 {
		if c = &a.blocks[last]; c.told+c.blank+size <= c.size {
			return c, size
		}
	}
	b := newBlock(max(blockSize, (size+blockSize-1)&^(blockSize-1)))
	a.blocks = append(a.blocks, chunk{block: b})
	return &a.blocks[len(a.blocks)-1], size
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
	for _, c := range a.blocks {
		if !c.shared { // else it is the spare's
			c.release(c.told)
		}
	}
	*a = arena{}
}

// pointer turns an address of the arena, or of the memory parent and child
// share, back into a pointer. Both kinds of memory neither move nor go away
// while a program exists.
//
//go:nosplit
func pointer(addr uintptr) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(nil), addr) }
