package depot

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/containerd/errdefs"
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
	last  time.Time                // of a hold: no two have the same time
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
	_, _, err := h.hold(ctx, h.key(repository, dgst))
	return err
}

// hold tells when it did, and whether nobody held the thing before.
func (h *Holds) hold(ctx context.Context, key uint64) (at time.Time, fresh bool, err error) {
	for {
		h.mu.Lock()
		dying := h.dying[key]
		if dying == nil {
			_, held := h.held[key]
			at = h.note(key)
			h.mu.Unlock()
			return at, !held, nil
		}
		h.mu.Unlock()
		select {
		case <-dying:
		case <-ctx.Done():
			return at, false, ctx.Err()
		}
	}
}

// note holds. The caller has mu.
func (h *Holds) note(key uint64) time.Time {
	now := time.Now()
	if !now.After(h.last) {
		now = h.last.Add(1)
	}
	h.last = now
	h.held[key] = now
	return now
}

// Look holds and calls find, which looks whether the thing is there. What find
// says is ErrNotFound nobody was told to have, and is not held: whoever may read
// can ask for any number of things that are not there.
func (h *Holds) Look(ctx context.Context, repository string, dgst digest.Digest, find func() error) error {
	key := h.key(repository, dgst)
	at, fresh, err := h.hold(ctx, key)
	if err != nil {
		return err
	}
	if err = find(); fresh && errors.Is(err, errdefs.ErrNotFound) {
		h.mu.Lock()
		if h.held[key].Equal(at) { // nobody has held it since
			delete(h.held, key)
		}
		h.mu.Unlock()
	}
	return err
}

// Note holds without waiting for a drop under way: for what is held in advance,
// not on the strength of an answer.
func (h *Holds) Note(repository string, dgst digest.Digest) {
	key := h.key(repository, dgst)
	h.mu.Lock()
	h.note(key)
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
