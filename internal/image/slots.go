package image

import "context"

const (
	// mostAtOnce is how many layers of a pull are worked on at once where
	// there is memory enough: all of nearly every image. Measured with 32
	// layers, on two cores, of a registry that sends 10 MB/s over a connection,
	// as those far away do: 3 at once take 8.9 s, 8 take 4.0 s, 16 2.7 s, 24
	// 3.1 s and 32 3.2 s; from a registry on loopback the number matters
	// little. Meanwhile the daemon has 48, 72, 98, 120 and 142 MB.
	mostAtOnce = 16
	// leastAtOnce is Docker's number.
	leastAtOnce = 3
	// layerShare is the memory of the machine that one layer more needs, in
	// bytes: so many layers with the largest window a decompressor is allowed
	// (128 MiB) take a quarter of it.
	layerShare = 512 << 20
)

// AtOnce is how many layers of a pull a machine with so many bytes of memory
// works on at once when nobody says otherwise.
func AtOnce(memory int64) int {
	return int(min(max(memory/layerShare, leastAtOnce), mostAtOnce))
}

// slots bound the layers of all pulls that are worked on at once, however many
// pulls there are: twice those of one, so that a pull whose registry hangs
// leaves room for others.
type slots chan struct{}

func newSlots(parallel int) slots { return make(slots, 2*parallel) }

// take waits for a slot. The caller gives it back.
func (s slots) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s slots) giveBack() { <-s }
