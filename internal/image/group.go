package image

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"
)

// step is how far the work on a layer is, for those who watch.
type step struct {
	status         string // as Docker words it
	current, total int64  // bytes; 0 where they do not apply
}

// group does the work on one layer, or on one blob, once, however many pulls and loads want it
// at the same time. The work ends early when the last of them gave up. It has
// an ingest of its own; whoever waits has the result pinned in theirs before
// that ends.
type group struct {
	mu    sync.Mutex // guards calls, and what is in them
	calls map[digest.Digest]*call
}

type call struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters map[int]waiter
	next    int  // key of the next waiter
	last    step // shown to those who come later
	result  layerRecord
	err     error
}

type waiter struct {
	in    *ingest
	watch func(step)
}

// work is done in a context of its own: that of the group of callers.
type work func(ctx context.Context, in *ingest, report func(step)) (layerRecord, error)

// do returns the result of the work for the layer, or of the same work under
// way. A failure of work that another caller began is not taken over: this
// caller's may succeed, as it may reach for another registry. watch is called
// with a lock held: it must not wait.
func (g *group) do(ctx context.Context, in *ingest, key digest.Digest, watch func(step), w work) (layerRecord, error) {
	for {
		c, id := g.join(ctx, key, waiter{in, watch}, w)
		select {
		case <-c.done:
			g.leave(c, id)
		case <-ctx.Done():
			if g.leave(c, id) {
				<-c.done // nothing is under way any more when the caller hears of it
			}
			return layerRecord{}, context.Cause(ctx)
		}
		if c.err == nil || id == 0 && !errors.Is(c.err, context.Canceled) {
			return c.result, c.err
		}
		if err := context.Cause(ctx); err != nil {
			return layerRecord{}, err
		}
	}
}

// join finds or starts the call. The one who starts it is waiter 0.
func (g *group) join(ctx context.Context, key digest.Digest, wt waiter, w work) (*call, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		c.next++
		c.waiters[c.next] = wt
		if c.last.status != "" {
			wt.watch(c.last)
		}
		return c, c.next
	}
	if g.calls == nil {
		g.calls = map[digest.Digest]*call{}
	}
	// The caller's values stay, its end does not: others may still want it.
	workCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &call{done: make(chan struct{}), cancel: cancel, waiters: map[int]waiter{0: wt}}
	g.calls[key] = c
	go g.run(workCtx, c, key, wt.in.m.begin(), w)
	return c, 0
}

func (g *group) run(ctx context.Context, c *call, key digest.Digest, in *ingest, w work) {
	result, err := w(ctx, in, func(s step) { g.report(c, s) })
	c.cancel()
	g.mu.Lock()
	c.result, c.err = result, err
	if err == nil {
		for _, wt := range c.waiters {
			if result.DiffID != "" {
				wt.in.pinLayer(result.DiffID)
			}
			wt.in.pinBlob(result.Blob.Digest)
		}
	}
	delete(g.calls, key)
	g.mu.Unlock()
	in.end()
	close(c.done)
}

func (g *group) report(c *call, s step) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.last = s
	for _, wt := range c.waiters {
		wt.watch(s)
	}
}

// leave takes a caller out. The last one stops the work, and is told so.
func (g *group) leave(c *call, id int) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(c.waiters, id)
	if len(c.waiters) == 0 {
		c.cancel()
		return true
	}
	return false
}
