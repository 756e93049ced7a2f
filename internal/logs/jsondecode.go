package logs

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// maxEntry is the longest record a reader believes in: the longest piece of a
// line, every byte escaped, and generous attributes.
const maxEntry = 1 << 20

func (c *jsonCodec) decode(buf []byte, m *Message) int {
	n := bytes.IndexByte(buf, '\n')
	if n < 0 {
		if len(buf) > maxEntry {
			return -len(buf)
		}
		return 0
	}
	if !c.line(buf[:n], m) {
		return -(n + 1)
	}
	return n + 1
}

// line decodes one line. The layout Docker and Gantry write is read by hand;
// whatever else is JSON with the same fields goes the long way round.
func (c *jsonCodec) line(line []byte, m *Message) bool {
	line = bytes.TrimSpace(line)
	if len(line) < 2 || line[0] != '{' || line[len(line)-1] != '}' {
		return false
	}
	s := scanner{buf: line[1:], text: c.text[:0]}
	ok := s.object(m)
	c.text = s.text
	if ok {
		return true
	}
	var slow struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Time   time.Time         `json:"time"`
		Attrs  map[string]string `json:"attrs"`
	}
	if json.Unmarshal(line, &slow) != nil || slow.Time.IsZero() {
		return false
	}
	*m = Message{Stream: slow.Stream, Time: slow.Time, Line: []byte(slow.Log), Attrs: slow.Attrs}
	return true
}

// scanner reads the fields of an object without spaces. It gives up, rather
// than being right about them, on all things rare.
type scanner struct {
	buf  []byte // what is left
	text []byte // decoded strings are appended here
}

func (s *scanner) object(m *Message) bool {
	*m = Message{}
	for {
		key, ok := s.string()
		if !ok || !s.skip(':') {
			return false
		}
		switch string(key) {
		case "log":
			m.Line, ok = s.string()
		case "stream":
			var v []byte
			if v, ok = s.string(); string(v) == "stderr" {
				m.Stream = "stderr"
			} else if string(v) == "stdout" {
				m.Stream = "stdout"
			} else {
				return false
			}
		case "time":
			var v []byte
			if v, ok = s.string(); ok {
				var err error
				m.Time, err = time.Parse(time.RFC3339Nano, string(v))
				ok = err == nil
			}
		case "attrs":
			m.Attrs, ok = s.strings()
		default:
			return false
		}
		if !ok {
			return false
		}
		if s.skip('}') {
			return len(s.buf) == 0 && !m.Time.IsZero() && m.Stream != ""
		}
		if !s.skip(',') {
			return false
		}
	}
}

func (s *scanner) skip(b byte) bool {
	if len(s.buf) == 0 || s.buf[0] != b {
		return false
	}
	s.buf = s.buf[1:]
	return true
}

func (s *scanner) strings() (map[string]string, bool) {
	if !s.skip('{') {
		return nil, false
	}
	out := map[string]string{}
	for {
		k, ok := s.string()
		if !ok || !s.skip(':') {
			return nil, false
		}
		v, ok := s.string()
		if !ok {
			return nil, false
		}
		out[string(k)] = string(v)
		if s.skip('}') {
			return out, true
		}
		if !s.skip(',') {
			return nil, false
		}
	}
}

// string decodes a string. What it returns stays where it is when text grows.
func (s *scanner) string() ([]byte, bool) {
	if !s.skip('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.buf, '"')
	if end < 0 {
		return nil, false
	}
	if plain := s.buf[:end]; bytes.IndexByte(plain, '\\') < 0 && utf8.Valid(plain) && !hasControl(plain) {
		s.buf = s.buf[end+1:]
		return plain, true
	}
	start := len(s.text)
	for i := 0; i < len(s.buf); {
		b := s.buf[i]
		switch {
		case b == '"':
			s.buf = s.buf[i+1:]
			return s.text[start:len(s.text):len(s.text)], true
		case b == '\\':
			n := s.escape(s.buf[i:])
			if n == 0 {
				return nil, false
			}
			i += n
		case b < 0x20:
			return nil, false
		case b < utf8.RuneSelf:
			s.text = append(s.text, b)
			i++
		default:
			r, n := utf8.DecodeRune(s.buf[i:])
			s.text = utf8.AppendRune(s.text, r)
			i += n
		}
	}
	return nil, false
}

func hasControl(b []byte) bool {
	for _, c := range b {
		if c < 0x20 {
			return true
		}
	}
	return false
}

// escape decodes the escape sequence b starts with and returns its length, or 0.
func (s *scanner) escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if i := bytes.IndexByte([]byte(from), b[1]); i >= 0 {
		s.text = append(s.text, to[i])
		return 2
	}
	if b[1] != 'u' || len(b) < 6 {
		return 0
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 32)
	if err != nil || utf16.IsSurrogate(rune(v)) {
		return 0
	}
	s.text = utf8.AppendRune(s.text, rune(v))
	return 6
}

// tail walks backwards over whole lines that decode.
func (c *jsonCodec) tail(f readerAt, size int64, n int) (int64, int, error) {
	const block = 64 << 10
	var (
		m     Message
		found int
		have  []byte // bytes [off, off+len(have)) of the file, ending in a newline
		off   = size
		whole bool // have ends where a line ends
	)
	for {
		// Take the lines that are wholly in have, the youngest first.
		for whole {
			cut := bytes.LastIndexByte(have[:max(len(have)-1, 0)], '\n')
			if cut < 0 && off > 0 {
				break
			}
			if len(have) == 0 {
				return 0, found, nil
			}
			if c.line(have[cut+1:len(have)-1], &m) {
				if found++; found == n {
					return off + int64(cut+1), found, nil
				}
			}
			have = have[:cut+1]
		}
		if off == 0 {
			return 0, found, nil
		}
		if len(have) > maxEntry {
			have = have[:0]
			whole = false
		}
		step := min(block, off)
		next := make([]byte, step, int(step)+len(have))
		if _, err := f.ReadAt(next, off-step); err != nil && err != io.EOF {
			return 0, 0, err
		}
		have, off = append(next, have...), off-step
		if !whole {
			// The end of the file may be a line that is still being written.
			i := bytes.LastIndexByte(have, '\n')
			have, whole = slices.Clip(have[:i+1]), i >= 0
		}
	}
}
