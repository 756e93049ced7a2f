package spawn

import (
	"sync"
	"unsafe"
)

// arena is the memory a program's arguments live in: addresses in it stay valid
// until release, whatever the garbage collector does, because the chunks are
// held and the collector does not move heap objects.
type arena struct {
	chunks []*[chunkSize]byte
	large  [][]byte
	used   int // of the last chunk
}

const chunkSize = 64 << 10

var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// alloc returns the address of n zero bytes, aligned to 8.
func (a *arena) alloc(n int) uintptr {
	n = (n + 7) &^ 7
	if n > chunkSize/4 {
		b := make([]byte, n)
		a.large = append(a.large, b)
		return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	}
	if len(a.chunks) == 0 || a.used+n > chunkSize {
		a.chunks = append(a.chunks, chunkPool.Get().(*[chunkSize]byte))
		a.used = 0
	}
	c := a.chunks[len(a.chunks)-1]
	p := uintptr(unsafe.Pointer(c)) + uintptr(a.used)
	clear(c[a.used : a.used+n])
	a.used += n
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

// release gives the chunks back. Every address becomes invalid.
func (a *arena) release() {
	for _, c := range a.chunks {
		chunkPool.Put(c)
	}
	*a = arena{}
}

// pointer turns an address of the arena, or of the memory parent and child
// share, back into a pointer. Both kinds of memory neither move nor go away
// while a program exists.
//
//go:nosplit
func pointer(addr uintptr) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(nil), addr) }
