package depot

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Holds remembers until when a client was told that something is there; see the
// package comment. Implementations embed one; the zero value is not usable.
//
// A hold costs some 30 bytes. Holds older than what any collection asks for are
// forgotten with Forget.
type Holds struct {
	seed   maphash.Seed
	opened time.Time

	mu    sync.Mutex               // guards what follows
	held  map[uint64]time.Time     // by repository and digest; a collision holds too much, never too little
	dying map[uint64]chan struct{} // closed when the drop has been decided
}

// NewHolds returns holds of a depot that is being opened now.
func NewHolds() *Holds {
	return &Holds{
		seed:   maphash.MakeSeed(),
		opened: time.Now(),
		held:   map[uint64]time.Time{},
		dying:  map[uint64]chan struct{}{},
	}
}

func (h *Holds) key(repository string, dgst digest.Digest) uint64 {
	var m maphash.Hash
	m.SetSeed(h.seed)
	m.WriteString(repository)
	m.WriteByte(0)
	m.WriteString(string(dgst))
	return m.Sum64()
}

// Hold keeps digest in repository from being dropped. It waits for the outcome
// of a drop under way, so it is called before looking whether the thing is
// there, and never with a lock that a drop needs.
func (h *Holds) Hold(ctx context.Context, repository string, dgst digest.Digest) error {
	key := h.key(repository, dgst)
	for {
		h.mu.Lock()
		dying := h.dying[key]
		if dying == nil {
			h.held[key] = time.Now()
			h.mu.Unlock()
			return nil
		}
		h.mu.Unlock()
		select {
		case <-dying:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Note holds without waiting for a drop under way: for what is held in advance,
// not on the strength of an answer.
func (h *Holds) Note(repository string, dgst digest.Digest) {
	key := h.key(repository, dgst)
	h.mu.Lock()
	h.held[key] = time.Now()
	h.mu.Unlock()
}

// Dropping announces that a drop will be decided, unless the thing was held at
// `before` or later: then it returns nil. The caller calls the function when it
// is done.
func (h *Holds) Dropping(repository string, dgst digest.Digest, before time.Time) (done func()) {
	key := h.key(repository, dgst)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.opened.Before(before) || h.dying[key] != nil {
		return nil
	}
	if at, held := h.held[key]; held && !at.Before(before) {
		return nil
	}
	decided := make(chan struct{})
	h.dying[key] = decided
	return func() {
		h.mu.Lock()
		delete(h.dying, key)
		h.mu.Unlock()
		close(decided)
	}
}

// Forget lets go of holds that are older than the time.
func (h *Holds) Forget(before time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, at := range h.held {
		if at.Before(before) {
			delete(h.held, key)
		}
	}
}
