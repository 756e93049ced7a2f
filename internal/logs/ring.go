package logs

import (
	"bytes"
	"fmt"
	"sync"
	"time"
)

// ring is mode=non-blocking: output waits in memory for the disk, and what does
// not fit is dropped, by whole lines and with a line that says so.
type ring struct {
	next *lineWriter

	mu      sync.Mutex // guards everything below
	changed *sync.Cond // running became false
	queue   []chunk
	size    int64 // bytes in queue
	limit   int64

	running bool    // the goroutine exists: only while there is something to write
	skip    [3]bool // the line of this stream lost its beginning
	dropped int     // lines
}

type chunk struct {
	stream Stream
	at     time.Time
	data   []byte
	note   int  // lines dropped before this chunk
	cut    bool // the line before lost its end
}

func newRing(next *lineWriter, limit int64) *ring {
	r := &ring{next: next, limit: limit}
	r.changed = sync.NewCond(&r.mu)
	return r
}

func (r *ring) Write(s Stream, at time.Time, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cut := r.skip[s]
	if cut {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return
		}
		if p = p[i+1:]; len(p) == 0 {
			r.skip[s] = false
			return
		}
	}
	if r.size+int64(len(p)) > r.limit && len(r.queue) > 0 {
		r.dropped += bytes.Count(p, []byte{'\n'})
		r.skip[s] = true
		if p[len(p)-1] != '\n' {
			r.dropped++
		}
		return
	}
	r.skip[s] = false
	r.queue = append(r.queue, chunk{s, at, bytes.Clone(p), r.dropped, cut})
	r.dropped = 0
	r.size += int64(len(p))
	if !r.running {
		r.running = true
		go r.run()
	}
}

// run writes until nothing is left.
func (r *ring) run() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 {
		c := r.queue[0]
		r.queue[0] = chunk{}
		if r.queue = r.queue[1:]; len(r.queue) == 0 {
			r.queue = nil
		}
		r.mu.Unlock()
		r.write(&c)
		r.mu.Lock()
		r.size -= int64(len(c.data))
	}
	r.running = false
	r.changed.Broadcast()
}

func (r *ring) write(c *chunk) {
	if c.cut {
		r.next.cutLine(c.stream, c.at)
	}
	if c.note > 0 {
		r.next.note(c.at, fmt.Sprintf("gantry: %d log entries were dropped here: the buffer of mode=non-blocking was full", c.note))
	}
	r.next.Write(c.stream, c.at, c.data)
}

func (r *ring) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.running {
		r.changed.Wait()
	}
	if r.dropped > 0 {
		r.next.note(time.Now(), fmt.Sprintf("gantry: %d log entries were dropped here: the buffer of mode=non-blocking was full", r.dropped))
		r.dropped = 0
	}
}

func (r *ring) Unfinished() []Unfinished {
	r.drain()
	return r.next.Unfinished()
}

func (r *ring) Resume(u []Unfinished) { r.next.Resume(u) }

func (r *ring) Close() error {
	r.drain()
	return r.next.Close()
}

// cutLine ends the unfinished line of s, whose end was lost.
func (w *lineWriter) cutLine(s Stream, at time.Time) {
	w.mu.Lock()
	open := w.open[s] != nil
	w.mu.Unlock()
	if open {
		w.Write(s, at, []byte{'\n'})
	}
}

// note writes a line of the engine's own, between two lines of the container.
func (w *lineWriter) note(at time.Time, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := batch{w: w, buf: batches.Get().(*[]byte)}
	defer b.release()
	b.add(entry{stream: Stderr, at: at, line: []byte(text), last: true})
	b.flush()
}
