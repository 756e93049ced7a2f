package heap

import (
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func percent() int {
	p := debug.SetGCPercent(-1)
	debug.SetGCPercent(p)
	return p
}

// What a person would lose: an idle engine that is as large as it was when it was
// busy, or a collector that lets a large heap grow to its double and more.
func TestRoom(t *testing.T) {
	before := percent()
	defer debug.SetGCPercent(before)
	debug.SetGCPercent(40)
	synctest.Test(t, func(t *testing.T) {
		var p pace
		use := func(n int) {
			for range n {
				p.used()
				time.Sleep(calm - 1)
			}
		}
		use(busy - 1)
		if got := percent(); got != 40 {
			t.Errorf("after a few uses it is %d", got)
		}
		use(1)
		if got := percent(); got <= 100 || got > most {
			t.Errorf("in busy times it is %d", got)
		}
		large := make([]byte, 100<<20)
		runtime.GC()
		use(busy)
		if got := percent(); got != 40 {
			t.Errorf("of a large heap it is %d", got)
		}
		runtime.KeepAlive(large)
		runtime.GC()
		use(busy)
		if got := percent(); got <= 100 {
			t.Errorf("when it is small again it is %d", got)
		}
		time.Sleep(1)
		synctest.Wait()
		if got := percent(); got != 40 {
			t.Errorf("in a pause it is %d", got)
		}
		use(busy - 1)
		if got := percent(); got != 40 {
			t.Errorf("a few uses after a pause it is %d", got)
		}
	})
}

// What was allocated meanwhile is not kept.
func TestMemoryIsGivenBack(t *testing.T) {
	defer debug.SetGCPercent(percent())
	resident := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapSys - m.HeapReleased
	}
	synctest.Test(t, func(t *testing.T) {
		var p pace
		for range busy {
			p.used()
		}
		before := resident()
		for range 6 << 10 {
			sink = make([]byte, 1<<10)
		}
		during := resident()
		time.Sleep(calm)
		synctest.Wait()
		if after := resident(); during-before < 4<<20 || after > before+2<<20 {
			t.Errorf("%d bytes before, %d, and %d in a pause", before, during, after)
		}
	})
}

var sink []byte
