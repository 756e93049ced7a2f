package logs

import (
	"encoding/binary"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// jsonCodec is Docker's json-file layout: one object per line, with the fields
// in the order log, stream, attrs, time.
type jsonCodec struct {
	attrs []byte // `,"attrs":{…}` or nothing
	at    time.Time
	ends  [3][]byte // what follows the text, per stream, for entries made at at
	text  []byte    // of the message being decoded
}

func newJSONCodec(attrs map[string]string) *jsonCodec {
	c := &jsonCodec{}
	if len(attrs) > 0 {
		// A map of strings always marshals, its keys sorted.
		raw, _ := json.Marshal(attrs)
		c.attrs = append([]byte(`,"attrs":`), raw...)
	}
	return c
}

func (c *jsonCodec) append(dst []byte, e *entry) []byte {
	dst = append(dst, `{"log":"`...)
	dst = appendEscaped(dst, e.line)
	if e.last {
		dst = append(dst, `\n`...)
	}
	return append(dst, c.end(e.stream, e.at)...)
}

// end returns everything behind the text. Entries that were read together share
// their time, so it is made once for all of them.
func (c *jsonCodec) end(s Stream, at time.Time) []byte {
	if !at.Equal(c.at) {
		c.at = at
		c.ends[Stdout], c.ends[Stderr] = c.ends[Stdout][:0], c.ends[Stderr][:0]
	}
	if len(c.ends[s]) == 0 {
		b := append(c.ends[s], `","stream":"`...)
		b = append(b, s.String()...)
		b = append(b, '"')
		b = append(b, c.attrs...)
		b = append(b, `,"time":"`...)
		b = at.UTC().AppendFormat(b, time.RFC3339Nano)
		c.ends[s] = append(b, "\"}\n"...)
	}
	return c.ends[s]
}

// appendEscaped appends s as the inside of a JSON string with the escapes Docker
// writes: those of encoding/json, which include <, > and &, and \ufffd for each
// byte that is not UTF-8.
func appendEscaped(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	start, i := 0, 0
	for i < len(s) {
		for i+8 <= len(s) && plain8(binary.LittleEndian.Uint64(s[i:])) {
			i += 8
		}
		if i == len(s) {
			break
		}
		b := s[i]
		if b < utf8.RuneSelf {
			if b >= 0x20 && b != '"' && b != '\\' && b != '<' && b != '>' && b != '&' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch b {
			case '\\', '"':
				dst = append(dst, '\\', b)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&0xf])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\ufffd`...)
			start = i + n
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', 'u', '2', '0', '2', hex[r&0xf])
			start = i + n
		}
		i += n
	}
	return append(dst, s[start:]...)
}

// plain8 reports whether none of eight bytes needs a closer look. It may be
// wrong in one direction only: a plain byte behind a special one.
func plain8(v uint64) bool {
	const lo, hi = 0x0101010101010101, 0x8080808080808080
	zero := func(x uint64) uint64 { return (x - lo) &^ x }
	m := v | (v-lo*0x20)&^v
	m |= zero(v^lo*'"') | zero(v^lo*'\\') | zero(v^lo*'<') | zero(v^lo*'>') | zero(v^lo*'&')
	return m&hi == 0
}

// repair ends a half line, which a reader then skips.
func (c *jsonCodec) repair(f readerAt, size int64) (int64, []byte, error) {
	var last [1]byte
	if size == 0 {
		return 0, nil, nil
	}
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return 0, nil, err
	}
	if last[0] == '\n' {
		return size, nil, nil
	}
	return size, []byte{'\n'}, nil
}
