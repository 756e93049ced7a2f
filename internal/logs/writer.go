package logs

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"
)

// Writer keeps the output of one container. Its methods may be called by both
// streams at once. None of them fails: what cannot be kept (a full disk) is
// dropped, and a line saying how much takes its place as soon as one can be
// written, so that a container is never held up by more than the disk's speed.
type Writer interface {
	// Write takes output as it was read, cut anywhere, and keeps it by lines.
	Write(s Stream, at time.Time, p []byte)
	// Unfinished flushes all whole lines, closes the files and returns the lines
	// that have no end yet, for Resume of the writer that goes on.
	Unfinished() []Unfinished
	// Resume takes over what another writer's Unfinished returned.
	Resume([]Unfinished)
	// Close writes out the unfinished lines and closes the files.
	Close() error
}

// Unfinished is the beginning of a line.
type Unfinished struct {
	Stream Stream
	Line   []byte    `json:",omitempty"` // read and not written yet
	At     time.Time // of the line's first piece
	Piece  int       `json:",omitempty"` // pieces of the line that are written already
	ID     string    `json:",omitempty"`
}

// NewWriter opens the log c describes, to be continued if it exists. Wrong
// options are errdefs.ErrInvalidArgument.
func NewWriter(c Config) (Writer, error) {
	set, err := parse(c.Driver, c.Opts)
	if err != nil {
		return nil, err
	}
	if c.Driver == None {
		return discard{}, nil
	}
	enc := newCodec(&c)
	f, err := openFile(c.Path, set, enc)
	if err != nil {
		return nil, err
	}
	w := &lineWriter{codec: enc, file: f}
	if set.nonBlocking {
		return newRing(w, set.ringBytes), nil
	}
	return w, nil
}

type discard struct{}

func (discard) Write(Stream, time.Time, []byte) {}
func (discard) Unfinished() []Unfinished        { return nil }
func (discard) Resume([]Unfinished)             {}
func (discard) Close() error                    { return nil }

// batchSize is how many encoded bytes are handed to the kernel at once.
const batchSize = 128 << 10

// A batch buffer is held only while a chunk is being written.
var batches = sync.Pool{New: func() any {
	b := make([]byte, 0, batchSize+2*maxLine)
	return &b
}}

// lineWriter cuts output into lines and writes as many at once as it has.
type lineWriter struct {
	mu      sync.Mutex // guards everything below
	codec   codec
	file    *file
	open    [3]*Unfinished // by stream; nil between lines
	dropped int            // entries lost since the last write that worked
	reason  error
}

func (w *lineWriter) Write(s Stream, at time.Time, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := batch{w: w, buf: batches.Get().(*[]byte)}
	defer b.release()
	for len(p) > 0 {
		u := w.open[s]
		have := 0
		if u != nil {
			have = len(u.Line)
		}
		room := min(maxLine-have, len(p))
		i := bytes.IndexByte(p[:room], '\n')
		switch {
		case i >= 0 && u == nil: // nearly always
			b.e.stream, b.e.at, b.e.line, b.e.last = s, at, p[:i], true
			b.put()
			p = p[i+1:]
		case i >= 0:
			b.add(w.finish(s, at, p[:i], true))
			p = p[i+1:]
		case have+room == maxLine:
			b.add(w.finish(s, at, p[:room], false))
			p = p[room:]
		default:
			if u == nil {
				u = &Unfinished{Stream: s, At: at}
				w.open[s] = u
			}
			u.Line = append(u.Line, p...)
			p = nil
		}
	}
	b.flush()
}

// finish makes an entry of the unfinished line of s and more.
func (w *lineWriter) finish(s Stream, at time.Time, more []byte, last bool) entry {
	e := entry{stream: s, at: at, line: more, last: last}
	u := w.open[s]
	if u != nil {
		e.at = u.At
		if len(u.Line) > 0 {
			e.line = append(u.Line, more...)
		}
		e.piece, e.id = u.Piece, u.ID
	}
	switch {
	case !last:
		if u == nil {
			u = &Unfinished{Stream: s, At: at}
			w.open[s] = u
		}
		if u.ID == "" {
			u.ID = newID()
		}
		u.Line = nil
		u.Piece++
		e.piece, e.id = u.Piece, u.ID
	case e.piece > 0:
		e.piece++
		w.open[s] = nil
	default:
		w.open[s] = nil
	}
	return e
}

func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (w *lineWriter) Unfinished() []Unfinished {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Unfinished
	for s, u := range w.open {
		if u != nil {
			out = append(out, *u)
			w.open[s] = nil
		}
	}
	w.file.close()
	return out
}

func (w *lineWriter) Resume(list []Unfinished) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range list {
		if u.Stream == Stdout || u.Stream == Stderr {
			w.open[u.Stream] = &u
		}
	}
}

func (w *lineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := batch{w: w, buf: batches.Get().(*[]byte)}
	defer b.release()
	for _, s := range []Stream{Stdout, Stderr} {
		if u := w.open[s]; u != nil && len(u.Line) > 0 {
			b.add(w.finish(s, u.At, nil, false))
		}
	}
	b.flush()
	return w.file.close()
}

// batch collects encoded entries and rotates between them.
type batch struct {
	w     *lineWriter
	buf   *[]byte
	count int
	last  time.Time
	e     entry // what add was given: a copy that need not be allocated
}

func (b *batch) add(e entry) {
	b.e = e
	b.put()
	b.e = entry{}
}

// put takes b.e.
func (b *batch) put() {
	if b.w.file.full(len(*b.buf)) {
		b.flush()
		if err := b.w.file.rotate(); err != nil {
			b.w.reason = err
		}
	}
	*b.buf = b.w.codec.append(*b.buf, &b.e)
	b.count++
	b.last = b.e.at
	if len(*b.buf) >= batchSize {
		b.flush()
	}
}

func (b *batch) flush() {
	if b.count == 0 {
		return
	}
	w := b.w
	if w.dropped > 0 {
		text := fmt.Sprintf("gantry: %d log entries were dropped here: %v", w.dropped, w.reason)
		marker := entry{stream: Stderr, at: b.last, line: []byte(text), last: true}
		if w.file.write(w.codec.append(nil, &marker), b.last) == nil {
			w.dropped = 0
		}
	}
	err := w.reason
	if w.dropped == 0 {
		err = w.file.write(*b.buf, b.last)
	}
	if err != nil {
		w.dropped += b.count
		w.reason = err
	}
	*b.buf, b.count = (*b.buf)[:0], 0
}

func (b *batch) release() {
	if cap(*b.buf) <= 2*batchSize {
		batches.Put(b.buf)
	}
}
