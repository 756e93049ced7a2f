package ahead

import (
	"testing"
	"testing/synctest"
	"time"
)

// Filling follows a use, once for several; giving up follows the last.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var filled, expired int
		s := &Schedule{Fill: func() { filled++ }, Expire: func() { expired++ }}
		check := func(what string, f, e int) {
			t.Helper()
			synctest.Wait()
			if filled != f || expired != e {
				t.Errorf("%s: filled %d times and gave up %d times, want %d and %d", what, filled, expired, f, e)
			}
		}
		s.Used()
		s.Used()
		check("at once", 0, 0)
		time.Sleep(delay)
		check("a while later", 1, 0)
		time.Sleep(Life - delay - 1)
		s.Used()
		time.Sleep(delay)
		check("used again", 2, 0)
		time.Sleep(Life - delay - 1)
		check("still kept", 2, 0)
		time.Sleep(1)
		check("idle", 2, 1)
		s.Used()
		s.Stop()
		s.Used()
		time.Sleep(2 * Life)
		check("stopped", 2, 1)
	})
}

// Who fills counts what is there: two at a time would make too many.
func TestFillsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running, fills := 0, 0
		s := &Schedule{}
		s.Fill = func() {
			running++
			fills++
			if running > 1 {
				t.Error("two fill at a time")
			}
			time.Sleep(5 * delay)
			running--
		}
		for range 10 {
			s.Used()
			time.Sleep(delay + 1)
		}
		time.Sleep(time.Minute)
		if fills < 3 {
			t.Errorf("filled %d times", fills)
		}
		s.Stop()
	})
}
