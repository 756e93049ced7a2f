// Package ahead says when things are made ahead of need: in a quiet moment after
// one was used, and as a rule only while they are being used, so that an idle engine
// holds nothing. What they are it does not know, but for directories (Dirs).
package ahead

import (
	"sync"
	"time"

	"github.com/gantry-containers/gantry/internal/thread"
)

const (
	// delay lets the start that used something up have the processors.
	delay = 15 * time.Millisecond
	// Life is how long after the last use what was made ahead is kept.
	Life = 30 * time.Second
)

// Schedule calls two functions, each in a goroutine of its own, and Fill once at a
// time. The zero value but for them is ready.
type Schedule struct {
	Fill   func()        // makes what is missing
	Expire func()        // gives up all there is; nil keeps it
	Life   time.Duration // 0 is the package's

	mu      sync.Mutex // guards what follows
	running bool       // Fill is being called
	again   bool       // and then once more
	filling *time.Timer
	waiting bool // filling is set
	expiry  *time.Timer
	stopped bool
}

// Used has Fill called in a while, once for all uses until then, and Expire when
// there are no more of them.
func (s *Schedule) Used() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	if s.filling == nil {
		s.filling = time.AfterFunc(delay, s.fill)
		if s.Expire != nil {
			s.expiry = time.AfterFunc(s.life(), s.Expire)
		}
		s.waiting = true
		return
	}
	if s.expiry != nil {
		s.expiry.Reset(s.life())
	}
	if !s.waiting {
		s.waiting = true
		s.filling.Reset(delay)
	}
}

func (s *Schedule) life() time.Duration {
	if s.Life == 0 {
		return Life
	}
	return s.Life
}

func (s *Schedule) fill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	if s.running {
		s.again = true
		return
	}
	s.running = true
	for again := true; again; again = s.again {
		s.again = false
		s.mu.Unlock()
		thread.Unhurried(s.Fill) // what is made must not be in the way of the start it is not for
		s.mu.Lock()
	}
	s.running = false
}

// Stop ends the calls for good. One that has begun may still be under way.
func (s *Schedule) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.filling != nil {
		s.filling.Stop()
	}
	if s.expiry != nil {
		s.expiry.Stop()
	}
}
