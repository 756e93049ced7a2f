package directory

import (
	bolt "go.etcd.io/bbolt"

	"github.com/gantry-containers/gantry/internal/errs"
)

// change is a function that wants to be part of a transaction, and whoever waits
// for that. It may be called more than once, so it sets its results anew each
// time.
type change struct {
	f    func(tx *bolt.Tx) error
	done chan error
}

// update runs f in a transaction and returns when that is durable. Changes that
// arrive while another transaction is being synced become one transaction:
// a single client does not wait for company, and many share the syncs. When f
// fails, nothing of it is kept.
func (d *Directory) update(f func(tx *bolt.Tx) error) error {
	c := &change{f, make(chan error, 1)}
	select {
	case d.changes <- c:
		return usual(<-c.done)
	case <-d.closing:
		return errs.Unavailable("the registry is being stopped")
	}
}

// maxBatch bounds a transaction, and thereby how long its first change waits.
const maxBatch = 256

// commit is the one goroutine that writes to the database.
func (d *Directory) commit() {
	defer close(d.stopped)
	for {
		select {
		case first := <-d.changes:
			d.apply(d.gather([]*change{first}))
		case <-d.closing:
			return
		}
	}
}

// gather adds the changes that are waiting.
func (d *Directory) gather(batch []*change) []*change {
	for len(batch) < maxBatch {
		select {
		case c := <-d.changes:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// apply commits a batch. One that fails is told so and left out; the others are
// run again without it, as a transaction cannot take back a part of itself.
func (d *Directory) apply(batch []*change) {
	for len(batch) > 0 {
		failed := -1
		err := d.db.Update(func(tx *bolt.Tx) error {
			for i, c := range batch {
				if err := c.f(tx); err != nil {
					failed = i
					return err
				}
			}
			return nil
		})
		if failed < 0 {
			for _, c := range batch {
				c.done <- err
			}
			return
		}
		batch[failed].done <- err
		batch = append(batch[:failed:failed], batch[failed+1:]...)
	}
}
