package inflate

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// checksum is of what a member decompressed to.
type checksum struct {
	crc  uint32
	size uint32 // modulo 2^32
}

func (c *checksum) add(p []byte) {
	c.crc = crc32.Update(c.crc, crc32.IEEETable, p)
	c.size += uint32(len(p))
}

// The flags of a member's header.
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

// header reads the header of a member. It fails with io.EOF when there is none.
func (z *Reader) header() error {
	var h [10]byte
	if err := z.full(h[:]); err != nil {
		return err
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return ErrCorrupt
	}
	crc := crc32.ChecksumIEEE(h[:])
	flags := h[3]
	part := func(p []byte) error {
		err := unexpected(z.full(p))
		crc = crc32.Update(crc, crc32.IEEETable, p)
		return err
	}
	if flags&flagExtra != 0 {
		var length [2]byte
		if err := part(length[:]); err != nil {
			return err
		}
		if err := part(make([]byte, binary.LittleEndian.Uint16(length[:]))); err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		for c := []byte{1}; c[0] != 0; { // up to a zero
			if err := part(c); err != nil {
				return err
			}
		}
	}
	if flags&flagHeaderCRC != 0 {
		want := uint16(crc)
		var sum [2]byte
		if err := unexpected(z.full(sum[:])); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(sum[:]) != want {
			return ErrCorrupt
		}
	}
	z.sum, z.past = checksum{}, z.w
	return nil
}

// trailer reads what a member ends with, and holds what came out against it.
func (z *Reader) trailer() error {
	var t [8]byte
	if err := z.full(t[:]); err != nil {
		return unexpected(err)
	}
	if binary.LittleEndian.Uint32(t[:]) != z.sum.crc || binary.LittleEndian.Uint32(t[4:]) != z.sum.size {
		return ErrCorrupt
	}
	return nil
}

var _ io.ReadCloser = (*Reader)(nil)
