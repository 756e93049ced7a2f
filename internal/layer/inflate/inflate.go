// Package inflate decompresses gzip (RFC 1952, RFC 1951), faster than the
// libraries there are: most of the time a pull takes is this.
//
// What makes it fast: 64 bits of the input are looked at together; a code is
// found by one look into a table, two for the rare long ones; and matches are
// copied in the output buffer, eight bytes at a time, which holds the window as
// well. It knows nothing of tar or layers.
package inflate

import (
	"encoding/binary"
	"errors"
	"io"
)

// ErrCorrupt is returned for data that is not what gzip makes.
var ErrCorrupt = errors.New("gzip: the data is damaged")

const (
	window  = 32 << 10  // how far back a match can reach
	chunk   = 128 << 10 // output between two reads
	slack   = 258 + 16  // a symbol is written without looking at the end
	inSize  = 64 << 10
	padding = 32 // zeros behind the input, so that its end is seen late
)

// Reader is the decompressed stream. It is for one goroutine.
type Reader struct {
	src io.Reader
	err error // what Read returns once everything was given out

	in    [inSize + padding]byte
	pos   int // of the next byte of in to be taken into bits
	end   int // of the input in in
	ended bool
	bits  uint64 // those not used yet, the next one lowest
	nbits uint   // how many of them count; those above are right, too

	out  [window + chunk + slack + 8]byte
	r, w int // what of out was not given out yet

	state  state
	final  bool // the block is the last of its member
	stored int  // bytes left of a stored block
	past   int  // where in out the member begins: no match reaches before it
	sum    checksum

	lit  [4096]uint32 // codes of literals and lengths; 2342 are needed at most
	dist [1024]uint32 // codes of distances; 402 are needed at most
}

type state uint8

const (
	atMember state = iota
	atBlock
	inStored
	inCodes
	atTrailer
)

// NewReader begins with the header of the first member, which it reads.
func NewReader(src io.Reader) (*Reader, error) {
	z := &Reader{src: src}
	if err := z.header(); err != nil {
		return nil, unexpected(err)
	}
	z.state = atBlock
	return z, nil
}

// Close does nothing: there is nothing to give back.
func (z *Reader) Close() error { return nil }

// Read implements io.Reader. It fails with ErrCorrupt for what is damaged, and
// with io.ErrUnexpectedEOF for what is cut off.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.r == z.w {
		if z.err != nil {
			return 0, z.err
		}
		z.slide()
		z.err = z.decode()
		z.sum.add(z.out[z.r:z.w])
	}
	n := copy(p, z.out[z.r:z.w])
	z.r += n
	return n, nil
}

// slide makes room in out, and keeps the window.
func (z *Reader) slide() {
	if z.w < chunk {
		return
	}
	keep := min(z.w, window)
	copy(z.out[:keep], z.out[z.w-keep:z.w])
	z.past = max(0, z.past-(z.w-keep))
	z.r, z.w = keep, keep
}

// decode goes on until out is full or a member ends.
func (z *Reader) decode() (err error) {
	for z.w < window+chunk {
		switch z.state {
		case atMember:
			if err := z.header(); err != nil {
				return err // io.EOF where there is no other member
			}
			z.state = atBlock
		case atBlock:
			err = z.block()
		case inStored:
			err = z.copyStored()
		case inCodes:
			err = z.codes()
		case atTrailer:
			if z.r < z.w {
				return nil // first it has to be given out, and counted
			}
			err = z.trailer()
			z.state = atMember
		}
		if err == ErrCorrupt && z.overrun() != nil {
			return io.ErrUnexpectedEOF // it was the zeros behind the end
		}
		if err != nil {
			return unexpected(err)
		}
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill reads more input, behind what is not used yet. At its end there are
// zeros; whoever takes bits notices when they were of those.
func (z *Reader) fill() error {
	if z.ended {
		return z.overrun()
	}
	back := min(z.pos, 8) // what align may give back
	z.end = copy(z.in[:], z.in[z.pos-back:z.end])
	z.pos = back
	for empty := 0; z.end < inSize; {
		n, err := z.src.Read(z.in[z.end:inSize])
		z.end += n
		if err == io.EOF {
			z.ended = true
			clear(z.in[z.end : z.end+padding])
			break
		}
		if err != nil {
			return err
		}
		if z.end >= inSize/4 {
			break
		}
		if n == 0 {
			if empty++; empty > 100 {
				return io.ErrNoProgress
			}
		}
	}
	return nil
}

// overrun tells whether bits were taken that there are not.
func (z *Reader) overrun() error {
	if z.pos-int(z.nbits>>3) > z.end {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// need makes at least n bits available, 48 at most.
func (z *Reader) need(n uint) error {
	if z.nbits >= n {
		return nil
	}
	if z.end-z.pos < 8 {
		if err := z.fill(); err != nil {
			return err
		}
	}
	z.bits |= binary.LittleEndian.Uint64(z.in[z.pos:]) << z.nbits
	z.pos += int((63 - z.nbits) >> 3)
	z.nbits |= 56
	return nil
}

// take returns the next n bits, 16 at most.
func (z *Reader) take(n uint) (uint, error) {
	if err := z.need(n); err != nil {
		return 0, err
	}
	v := uint(z.bits) & (1<<n - 1)
	z.bits >>= n
	z.nbits -= n
	return v, nil
}

// align drops what is left of a byte, and gives whole bytes back to the input.
func (z *Reader) align() error {
	z.pos -= int(z.nbits >> 3)
	z.bits, z.nbits = 0, 0
	if z.pos > z.end {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// block reads the header of a block.
func (z *Reader) block() error {
	if z.final {
		z.final = false
		z.state = atTrailer
		return z.align()
	}
	v, err := z.take(3)
	if err != nil {
		return err
	}
	z.final = v&1 == 1
	switch v >> 1 {
	case 0:
		return z.storedHeader()
	case 1:
		z.state = inCodes
		return z.fixedCodes()
	case 2:
		z.state = inCodes
		return z.dynamicCodes()
	}
	return ErrCorrupt
}

func (z *Reader) storedHeader() error {
	if err := z.align(); err != nil {
		return err
	}
	var head [4]byte
	if err := z.full(head[:]); err != nil {
		return err
	}
	length := binary.LittleEndian.Uint16(head[:])
	if length != ^binary.LittleEndian.Uint16(head[2:]) {
		return ErrCorrupt
	}
	z.state, z.stored = inStored, int(length)
	return nil
}

// copyStored copies of a stored block what out has room for.
func (z *Reader) copyStored() error {
	n := min(z.stored, window+chunk-z.w)
	if z.pos == z.end && n > 0 {
		if z.ended {
			return io.ErrUnexpectedEOF
		}
		if err := z.fill(); err != nil {
			return err
		}
	}
	n = copy(z.out[z.w:z.w+n], z.in[z.pos:z.end])
	z.pos, z.w, z.stored = z.pos+n, z.w+n, z.stored-n
	if z.stored == 0 {
		z.state = atBlock
	}
	return nil
}

// full reads whole bytes, after align. It fails with io.EOF when there is none.
func (z *Reader) full(p []byte) error {
	for n := 0; n < len(p); {
		if z.pos >= z.end {
			if z.ended && n == 0 {
				return io.EOF
			}
			if z.ended {
				return io.ErrUnexpectedEOF
			}
			if err := z.fill(); err != nil {
				return err
			}
			continue
		}
		m := copy(p[n:], z.in[z.pos:z.end])
		n, z.pos = n+m, z.pos+m
	}
	return nil
}
