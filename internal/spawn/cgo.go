//go:build cgo

package spawn

// With the C library every thread has registered memory with the kernel (rseq),
// without which a child does not get as far as its first instruction.
const withC = true
