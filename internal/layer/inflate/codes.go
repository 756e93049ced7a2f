package inflate

import (
	"encoding/binary"
	"math/bits"
)

// An entry of a table tells what a code stands for. Its low four bits are the
// length of the code. Of a literal, the byte is in the upper half; of a length
// or a distance, the base is there, and the number of extra bits in the four
// bits from extraShift on. Of a code that is too long for the table, there is
// the place of another table, and how many bits that is looked up by. Zero is
// no code.
const (
	isLiteral  = 1 << 15
	isTable    = 1 << 14
	isEnd      = 1 << 13
	isInvalid  = 1 << 12
	extraShift = 8
	valueShift = 16

	litBits  = 11 // the first look into a table is by that many bits
	distBits = 8
	maxBits  = 15 // of a code

	endOfBlock = 256
	maxLit     = 286
	maxDist    = 30
)

// lengthEntry and distEntry are the entries of symbols, but for the length of
// the code (RFC 1951, 3.2.5).
func lengthEntry(symbol int) uint32 {
	switch s := symbol - 257; {
	case symbol < endOfBlock:
		return uint32(symbol)<<valueShift | isLiteral
	case symbol == endOfBlock:
		return isEnd
	case symbol >= maxLit:
		return isInvalid
	case s < 8:
		return uint32(s+3) << valueShift
	case symbol == 285:
		return 258 << valueShift
	default:
		extra := uint32(s-4) / 4
		return (3+(4+uint32(s)&3)<<extra)<<valueShift | extra<<extraShift
	}
}

func distEntry(symbol int) uint32 {
	switch s := uint32(symbol); {
	case symbol >= maxDist:
		return isInvalid
	case s < 4:
		return (s + 1) << valueShift
	default:
		extra := (s - 2) / 2
		return (1+(2+s&1)<<extra)<<valueShift | extra<<extraShift
	}
}

// build fills a table of canonical codes (RFC 1951, 3.2.2) from the length of
// each symbol's. The first look into it is by root bits. As other programs it
// takes a code that is incomplete only if that is a single one of one bit, or
// none at all.
func build(table []uint32, lengths []uint8, root int, entry func(symbol int) uint32) error {
	var count [maxBits + 1]int
	for _, n := range lengths {
		count[n]++
	}
	used := len(lengths) - count[0]
	count[0] = 0
	clear(table)
	if used == 0 {
		return nil
	}
	var next [maxBits + 1]int // the next code of each length
	var offset [maxBits + 2]int
	code := 0
	for n := 1; n <= maxBits; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
		offset[n+1] = offset[n] + count[n]
		if code+count[n] > 1<<n {
			return ErrCorrupt
		}
	}
	if code+count[maxBits] != 1<<maxBits && (used != 1 || count[1] != 1) {
		return ErrCorrupt
	}
	var sorted [288]uint16 // symbols by the length of their codes
	for symbol, n := range lengths {
		if n > 0 {
			sorted[offset[n]] = uint16(symbol)
			offset[n]++
		}
	}
	b := builder{table: table, root: root, end: 1 << root, prefix: -1, count: &count}
	for _, symbol := range sorted[:used] {
		n := int(lengths[symbol])
		b.add(int(bits.Reverse16(uint16(next[n]))>>(16-n)), n, entry(int(symbol))|uint32(n))
		next[n]++
		count[n]--
	}
	return nil
}

// builder adds codes to a table, the shorter first.
type builder struct {
	table  []uint32
	root   int
	count  *[maxBits + 1]int // codes to come, by length
	prefix int               // that of the present second table
	start  int               // of it
	end    int               // of all tables
	sub    int               // bits the second table is looked up by
}

func (b *builder) add(code, length int, e uint32) {
	if length <= b.root {
		for i := code; i < 1<<b.root; i += 1 << length {
			b.table[i] = e
		}
		return
	}
	if prefix := code & (1<<b.root - 1); prefix != b.prefix {
		b.prefix, b.start = prefix, b.end
		b.sub = length - b.root
		for codes := b.count[length]; codes < 1<<b.sub && b.root+b.sub < maxBits; {
			b.sub++
			codes = codes<<1 + b.count[b.root+b.sub]
		}
		b.end += 1 << b.sub
		b.table[prefix] = uint32(b.start)<<valueShift | isTable | uint32(b.sub)<<extraShift
	}
	for i := code >> b.root; i < 1<<b.sub; i += 1 << (length - b.root) {
		b.table[b.start+i] = e
	}
}

func (z *Reader) fixedCodes() error {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	if err := build(z.lit[:], lengths[:], litBits, lengthEntry); err != nil {
		return err
	}
	for i := range 32 {
		lengths[i] = 5
	}
	return build(z.dist[:], lengths[:32], distBits, distEntry)
}

// dynamicCodes reads the codes of a block (RFC 1951, 3.2.7).
func (z *Reader) dynamicCodes() error {
	head, err := z.take(14)
	if err != nil {
		return err
	}
	lits, dists, n := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if lits > maxLit || dists > maxDist {
		return ErrCorrupt
	}
	var order [19]uint8
	for i := range n {
		v, err := z.take(3)
		if err != nil {
			return err
		}
		order["\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"[i]] = uint8(v)
	}
	table := z.dist[:1<<7] // free until it is built
	if err := build(table, order[:], 7, func(symbol int) uint32 { return uint32(symbol) << valueShift }); err != nil {
		return err
	}
	var lengths [maxLit + maxDist]uint8
	if err := z.codeLengths(table, lengths[:lits+dists]); err != nil {
		return err
	}
	if err := build(z.lit[:], lengths[:lits], litBits, lengthEntry); err != nil {
		return err
	}
	return build(z.dist[:], lengths[lits:lits+dists], distBits, distEntry)
}

func (z *Reader) codeLengths(table []uint32, lengths []uint8) error {
	for i := 0; i < len(lengths); {
		if err := z.need(7); err != nil {
			return err
		}
		e := table[z.bits&(1<<7-1)]
		if e == 0 {
			return ErrCorrupt
		}
		z.bits >>= e & 15
		z.nbits -= uint(e & 15)
		var value uint8
		var extra, repeat uint
		switch symbol := e >> valueShift; symbol {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			value, extra, repeat = lengths[i-1], 2, 3
		case 17:
			extra, repeat = 3, 3
		case 18:
			extra, repeat = 7, 11
		default:
			value, repeat = uint8(symbol), 1
		}
		more, err := z.take(extra)
		if err != nil {
			return err
		}
		if repeat += more; i+int(repeat) > len(lengths) {
			return ErrCorrupt
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	return nil
}

// codes decompresses until the block ends or out is full. It is the loop where
// the time goes: all it uses is in variables of its own.
func (z *Reader) codes() error {
	var (
		in    = &z.in
		out   = &z.out
		pos   = z.pos
		w     = z.w
		bits  = z.bits
		nbits = z.nbits
	)
	const (
		more = iota
		done
		corrupt
	)
	what := more
	for w < window+chunk && what == more {
		if z.end-pos < 16 { // for two looks
			z.pos, z.bits, z.nbits = pos, bits, nbits
			if err := z.fill(); err != nil {
				z.w = w
				return err
			}
			pos = z.pos
		}
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
		pos += int((63 - nbits) >> 3)
		nbits |= 56

		// Up to three literals and the first bits of what follows fit.
		e := z.lit[bits&(1<<litBits-1)]
		if e&isLiteral != 0 {
			bits >>= e & 15
			nbits -= uint(e & 15)
			out[w] = byte(e >> valueShift)
			w++
			e = z.lit[bits&(1<<litBits-1)]
			if e&isLiteral != 0 {
				bits >>= e & 15
				nbits -= uint(e & 15)
				out[w] = byte(e >> valueShift)
				w++
				e = z.lit[bits&(1<<litBits-1)]
				if e&isLiteral != 0 {
					bits >>= e & 15
					nbits -= uint(e & 15)
					out[w] = byte(e >> valueShift)
					w++
					continue
				}
			}
		}
		if e&isTable != 0 {
			i := e>>valueShift + uint32(bits>>litBits)&(1<<(e>>extraShift&15)-1)
			e = z.lit[i&4095]
			if e&isLiteral != 0 {
				bits >>= e & 15
				nbits -= uint(e & 15)
				out[w] = byte(e >> valueShift)
				w++
				continue
			}
		}
		if e&(isEnd|isInvalid) != 0 || e == 0 {
			bits >>= e & 15
			nbits -= uint(e & 15)
			what = done
			if e&isEnd == 0 {
				what = corrupt
			}
			continue
		}
		bits >>= e & 15
		extra := e >> extraShift & 15
		length := int(e>>valueShift) + int(bits&(1<<extra-1))
		bits >>= extra
		nbits -= uint(e&15) + uint(extra)

		// A distance takes 28 bits, and of 56 as many as 42 may be gone.
		if nbits < 28 {
			bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
			pos += int((63 - nbits) >> 3)
			nbits |= 56
		}
		e = z.dist[bits&(1<<distBits-1)]
		if e&isTable != 0 {
			i := e>>valueShift + uint32(bits>>distBits)&(1<<(e>>extraShift&15)-1)
			e = z.dist[i&1023]
		}
		if e&isInvalid != 0 || e == 0 {
			what = corrupt
			continue
		}
		bits >>= e & 15
		extra = e >> extraShift & 15
		distance := int(e>>valueShift) + int(bits&(1<<extra-1))
		bits >>= extra
		nbits -= uint(e&15) + uint(extra)

		from := w - distance
		if from < z.past {
			what = corrupt
			continue
		}
		if distance >= 8 {
			// Up to seven bytes too many, which are written over.
			src, dst := out[from:w+slack-16], out[w:w+slack]
			for i := 0; i < length; i += 8 {
				binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(src[i:]))
			}
		} else {
			for n := 0; n < length; {
				n += copy(out[w+n:w+length], out[from:w+n]) // each time twice as much
			}
		}
		w += length
	}
	z.pos, z.w, z.bits, z.nbits = pos, w, bits, nbits
	switch what {
	case done:
		z.state = atBlock
	case corrupt:
		return ErrCorrupt
	}
	return nil
}
