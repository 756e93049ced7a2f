package logs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// localCodec is the layout of Docker's local driver: a protobuf LogEntry with
// its length before and behind it, as big-endian 32-bit numbers.
//
//	LogEntry: 1 source, 2 time_nano, 3 line, 4 partial,
//	          5 partial_log_metadata{1 last, 2 id, 3 ordinal}, 6 attrs{1 key, 2 value}
type localCodec struct {
	attrs []byte // encoded field 6, repeated
	line  []byte // of the message being decoded
}

const (
	localFrame = 8             // bytes of both lengths
	localHead  = "\x0a\x06std" // field 1, six bytes: stdout or stderr
)

func newLocalCodec(attrs map[string]string) *localCodec {
	c := &localCodec{}
	keys := make([]string, 0, len(attrs))
	for k := range attrs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		attr := appendField(appendField(nil, 1, k), 2, attrs[k])
		c.attrs = appendField(c.attrs, 6, attr)
	}
	return c
}

// appendField appends a length-delimited protobuf field; an empty one is left
// out, as proto3 does.
func appendField[T string | []byte](dst []byte, field byte, v T) []byte {
	if len(v) == 0 {
		return dst
	}
	dst = append(dst, field<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	return append(dst, v...)
}

func (c *localCodec) append(dst []byte, e *entry) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = appendField(dst, 1, e.stream.String())
	dst = append(dst, 2<<3)
	dst = binary.AppendUvarint(dst, uint64(e.at.UnixNano()))
	dst = appendField(dst, 3, e.line)
	if e.piece > 0 {
		dst = append(dst, 4<<3, 1)
		var meta []byte
		if e.last {
			meta = append(meta, 1<<3, 1)
		}
		meta = appendField(meta, 2, e.id)
		meta = append(meta, 3<<3)
		meta = binary.AppendUvarint(meta, uint64(e.piece))
		dst = appendField(dst, 5, meta)
	}
	dst = append(dst, c.attrs...)
	size := uint32(len(dst) - start - 4)
	binary.BigEndian.PutUint32(dst[start:], size)
	return binary.BigEndian.AppendUint32(dst, size)
}

func (c *localCodec) decode(buf []byte, m *Message) int {
	n := frameLen(buf)
	if n <= 0 {
		return n
	}
	if !c.entry(buf[4:n-4], m) {
		return -n
	}
	return n
}

// frameLen returns the length of the whole frame buf starts with, 0 when more
// of it is needed, and a negative number of bytes to skip when there is none.
// After damage it is found again one byte at a time: both lengths of a frame
// must agree.
func frameLen(buf []byte) int {
	if len(buf) < 4 {
		return 0
	}
	size := binary.BigEndian.Uint32(buf)
	if size == 0 || size > maxEntry {
		return -1
	}
	// Every entry begins with its source; without this a damaged length would
	// have to be believed until that many bytes were there.
	if head := buf[4:min(len(buf), 4+len(localHead))]; !strings.HasPrefix(localHead, string(head)) {
		return -1
	}
	n := int(size) + localFrame
	if len(buf) < n {
		return 0
	}
	if binary.BigEndian.Uint32(buf[n-4:]) != size {
		return -1
	}
	return n
}

// entry decodes a LogEntry. Unknown fields are skipped.
func (c *localCodec) entry(b []byte, m *Message) bool {
	*m = Message{}
	var line []byte
	partial, last := false, false
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return false
		}
		b = rest
		switch f.num {
		case 1:
			m.Stream = streamName(f.bytes)
		case 2:
			m.Time = time.Unix(0, int64(f.varint)).UTC()
		case 3:
			line = f.bytes
		case 4:
			partial = f.varint != 0
		case 5:
			for meta := f.bytes; len(meta) > 0; {
				g, rest, ok := nextField(meta)
				if !ok {
					return false
				}
				meta = rest
				if g.num == 1 {
					last = g.varint != 0
				}
			}
		case 6:
			if !addAttr(m, f.bytes) {
				return false
			}
		}
	}
	if m.Stream == "" || m.Time.IsZero() {
		return false
	}
	c.line = append(c.line[:0], line...)
	if !partial || last {
		c.line = append(c.line, '\n')
	}
	m.Line = c.line
	return true
}

func streamName(b []byte) string {
	switch string(b) {
	case "stdout":
		return "stdout"
	case "stderr":
		return "stderr"
	}
	return string(b)
}

func addAttr(m *Message, b []byte) bool {
	var kv [2]string
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return false
		}
		b = rest
		if f.num == 1 || f.num == 2 {
			kv[f.num-1] = string(f.bytes)
		}
	}
	if m.Attrs == nil {
		m.Attrs = map[string]string{}
	}
	m.Attrs[kv[0]] = kv[1]
	return true
}

// field is one protobuf field: a number or bytes.
type field struct {
	num    uint64
	varint uint64
	bytes  []byte
}

func nextField(b []byte) (f field, rest []byte, ok bool) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return f, nil, false
	}
	f.num, b = tag>>3, b[n:]
	switch tag & 7 {
	case 0:
		f.varint, n = binary.Uvarint(b)
		if n <= 0 {
			return f, nil, false
		}
		return f, b[n:], true
	case 1, 5:
		n = 8
		if tag&7 == 5 {
			n = 4
		}
		if len(b) < n {
			return f, nil, false
		}
		return f, b[n:], true
	case 2:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > math.MaxInt32 || int(size) > len(b)-n {
			return f, nil, false
		}
		f.bytes = b[n : n+int(size)]
		return f, b[n+int(size):], true
	}
	return f, nil, false
}

// repair finds the end of the last whole frame by its footer, or, when the file
// ends in half a frame, by walking over all of them.
func (c *localCodec) repair(f readerAt, size int64) (int64, []byte, error) {
	if size == 0 {
		return 0, nil, nil
	}
	if n, err := frameBefore(f, size); err == nil && n > 0 {
		return size, nil, nil
	}
	var off int64
	for off < size {
		var head [4]byte
		if _, err := f.ReadAt(head[:], off); err != nil {
			break
		}
		end := off + localFrame + int64(binary.BigEndian.Uint32(head[:]))
		if end > size {
			break
		}
		if n, err := frameBefore(f, end); err != nil || n != end-off {
			break
		}
		off = end
	}
	return off, nil, nil
}

// frameBefore returns the length of the frame that ends at end, or 0.
func frameBefore(f readerAt, end int64) (int64, error) {
	var b [4]byte
	if end <= localFrame {
		return 0, nil
	}
	if _, err := f.ReadAt(b[:], end-4); err != nil {
		return 0, err
	}
	size := binary.BigEndian.Uint32(b[:])
	n := int64(size) + localFrame
	if size == 0 || size > maxEntry || n > end {
		return 0, nil
	}
	if _, err := f.ReadAt(b[:], end-n); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint32(b[:]) != size {
		return 0, nil
	}
	return n, nil
}

func (c *localCodec) tail(f readerAt, size int64, n int) (int64, int, error) {
	end, _, err := c.repair(f, size)
	if err != nil && err != io.EOF {
		return 0, 0, fmt.Errorf("cannot find the end of the log: %w", err)
	}
	off, found := end, 0
	for found < n && off > 0 {
		step, err := frameBefore(f, off)
		if err != nil && err != io.EOF {
			return 0, 0, err
		}
		if step == 0 {
			return 0, 0, errDamaged
		}
		off -= step
		found++
	}
	return off, found, nil
}
