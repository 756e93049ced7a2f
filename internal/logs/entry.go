package logs

import "time"

// Stream names one of a process's output streams. Its values are those of the
// attach protocol's frames.
type Stream uint8

// The streams a container writes. A terminal has only Stdout.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// maxLine is the longest piece of a line that becomes one entry. A longer line
// is written in pieces of exactly this size, of which only the last ends in a
// newline, as Docker does.
const maxLine = 16 << 10

// entry is one record on its way into a file.
type entry struct {
	stream Stream
	at     time.Time
	line   []byte // without its newline
	piece  int    // 1, 2 … when the line is written in pieces, 0 otherwise
	id     string // shared by the pieces of one line
	last   bool   // the line ends here; always true when piece is 0
}

// Message is one record read back. Its slices and map are valid until the
// function it was given to returns.
type Message struct {
	Stream string // "stdout" or "stderr"
	Time   time.Time
	Line   []byte // with its newline, unless it is a piece of a longer line
	Attrs  map[string]string
}

// codec is a layout of entries in a file.
type codec interface {
	// append encodes e.
	append(dst []byte, e *entry) []byte
	// repair returns the offset of the first byte behind the last whole entry
	// of a file of size bytes, and what must be written there before the next
	// entry so that a reader finds it.
	repair(f readerAt, size int64) (end int64, separator []byte, err error)
	// decode reads the entry at the start of buf into m and returns its length.
	// A length of 0 asks for more bytes; a negative one says that -n bytes are
	// damaged and to be skipped.
	decode(buf []byte, m *Message) int
	// tail returns the offset at which the last n whole entries among the first
	// size bytes begin, and how many of the n there are.
	tail(f readerAt, size int64, n int) (offset int64, found int, err error)
}

type readerAt interface {
	ReadAt(p []byte, off int64) (int, error)
}

func newCodec(c *Config) codec {
	if c.Driver == Local {
		return newLocalCodec(c.Attrs)
	}
	return newJSONCodec(c.Attrs)
}
