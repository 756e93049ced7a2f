package shim

import (
	"sync"
	"time"
)

// gate lets everybody in, until an upgrade shuts it and waits for the last one
// inside to leave. It is a sync.RWMutex that can give up: somebody inside may be
// waiting for a hook that hangs, and that must not stop all the others for long.
type gate struct {
	mu      sync.Mutex // guards everything below
	changed *sync.Cond
	inside  int
	isShut  bool
}

func newGate() *gate {
	g := &gate{}
	g.changed = sync.NewCond(&g.mu)
	return g
}

func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.isShut {
		g.changed.Wait()
	}
	g.inside++
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.isShut {
		g.changed.Broadcast()
	}
}

// shut keeps everybody out. It reports false, and the gate is open again, when
// somebody is still inside after the given time.
func (g *gate) shut(patience time.Duration) bool {
	late := false
	t := time.AfterFunc(patience, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		late = true
		g.changed.Broadcast()
	})
	defer t.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.isShut && !late {
		g.changed.Wait() // another upgrade
	}
	if late {
		return false
	}
	g.isShut = true
	for g.inside > 0 && !late {
		g.changed.Wait()
	}
	if g.inside > 0 {
		g.isShut = false
		g.changed.Broadcast()
		return false
	}
	return true
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = false
	g.changed.Broadcast()
}
