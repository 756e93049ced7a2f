package notify

import (
	"errors"
	"math"
	"testing"
	"time"
)

// A pause somebody wrote with too many zeros must not end the registry.
func TestPausesOfAnyLength(t *testing.T) {
	for _, backoff := range []time.Duration{1, time.Second, 3 * time.Hour, math.MaxInt64} {
		for _, most := range []time.Duration{1, time.Minute, math.MaxInt64} {
			q := &queue{Endpoint: Endpoint{Backoff: backoff, MaxBackoff: most}}
			q.fill()
			for failures := range 100 {
				if d := q.pause(failures, errors.New("no")); d <= 0 || d > most {
					t.Fatalf("after %d failures from %v to %v: %v", failures, backoff, most, d)
				}
			}
		}
	}
}
