// Package heap trades memory for time: while one container is started after the
// other the collector comes more seldom, and when they are not the memory that was
// in use for it is given back at once. It knows nothing of containers.
//
// With a heap as small as that of an engine with few containers the collector comes
// every few starts, and takes a fiftieth of the time of all of them; but what an idle
// engine holds is to be small.
package heap

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	busy = 16                     // as many uses without a pause
	calm = 500 * time.Millisecond // is a pause
	room = 8 << 20                // bytes that are to be allocated between two collections
	most = 100 * room / (4 << 20) // the percentage at which an empty heap has that room
)

// pace is the pace of a process. The zero value is ready.
type pace struct {
	mu      sync.Mutex // guards what follows
	uses    int        // without a pause
	pause   *time.Timer
	percent int // of the collector when nothing happens; 0 when it has that
}

var own pace

// Used says that something was used of which there are many uses in a busy hour,
// and none in an idle one.
func Used() { own.used() }

func (p *pace) used() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause == nil {
		p.pause = time.AfterFunc(calm, p.rest)
	} else {
		p.pause.Reset(calm)
	}
	p.uses++
	if p.uses%busy == 0 {
		p.widen()
	}
}

// widen sets the percentage that gives the heap, as it is now, its room. p.mu is
// held.
func (p *pace) widen() {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	live, percent := max(sample[0].Value.Uint64(), 1), int(sample[1].Value.Uint64())
	if percent < 0 {
		return // there is no collector
	}
	if p.percent == 0 {
		p.percent = percent
	}
	wanted := max(p.percent, int(min(100*room/live, most)))
	// Setting it stops the world; what it is nearly does as well.
	if wanted < percent*3/4 || wanted > percent*4/3 {
		debug.SetGCPercent(wanted)
	}
}

// rest is called in a pause.
func (p *pace) rest() {
	p.mu.Lock()
	percent := p.percent
	p.uses, p.percent = 0, 0
	if percent != 0 {
		debug.SetGCPercent(percent)
	}
	p.mu.Unlock()
	if percent != 0 {
		debug.FreeOSMemory()
	}
}
