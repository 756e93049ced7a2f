package image

import (
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

// printer hands progress messages to a caller's sink, from a goroutine of its
// own: a client that reads slowly slows no transfer. A message that was not
// taken yet is replaced by a newer one of the same thing.
type printer struct {
	sink func(jsonstream.Message)
	done chan struct{}

	mu     sync.Mutex // guards what follows
	queue  []jsonstream.Message
	wake   chan struct{}
	closed bool
}

// newPrinter starts the printer; a nil sink is one nobody reads.
func newPrinter(sink func(jsonstream.Message)) *printer {
	p := &printer{sink: sink, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	if sink == nil {
		close(p.done)
		return p
	}
	go p.run()
	return p
}

func (p *printer) run() {
	defer close(p.done)
	for range p.wake {
		for {
			p.mu.Lock()
			queue, closed := p.queue, p.closed
			p.queue = nil
			p.mu.Unlock()
			for _, m := range queue {
				p.sink(m)
			}
			if len(queue) == 0 {
				if closed {
					return
				}
				break
			}
		}
	}
}

// emit queues a message. It never waits.
func (p *printer) emit(m jsonstream.Message) {
	if p.sink == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	replaced := false
	for i := len(p.queue) - 1; i >= 0 && m.ID != "" && m.Progress != nil; i-- {
		if p.queue[i].ID == m.ID {
			if replaced = p.queue[i].Status == m.Status; replaced {
				p.queue[i] = m
			}
			break
		}
	}
	if !replaced {
		p.queue = append(p.queue, m)
	}
	p.signal()
}

// signal is called with mu held.
func (p *printer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// close waits until every message was taken.
func (p *printer) close() {
	if p.sink != nil {
		p.mu.Lock()
		p.closed = true
		p.signal()
		p.mu.Unlock()
	}
	<-p.done
}

func (p *printer) status(id, text string) {
	p.emit(jsonstream.Message{ID: id, Status: text})
}

func (p *printer) stream(text string) {
	p.emit(jsonstream.Message{Stream: text})
}

// layer shows a step of a layer's way, under its short name.
func (p *printer) layer(id string) func(step) {
	return func(s step) {
		p.emit(jsonstream.Message{ID: id, Status: s.status,
			Progress: &jsonstream.Progress{Current: s.current, Total: s.total}})
	}
}

// meter reports how many bytes were read of how many, ten times a second.
type meter struct {
	r      io.Reader
	report func(step)
	step   step
	last   time.Time
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.step.current += int64(n)
	if now := time.Now(); now.Sub(m.last) >= 100*time.Millisecond {
		m.last = now
		m.report(m.step)
	}
	return n, err
}
