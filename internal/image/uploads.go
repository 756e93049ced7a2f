package image

import (
	"sync"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/state"
)

// minUpload is the size in bytes from which on a blob whose upload was
// interrupted is gone on with.
const minUpload = 1 << 20

// uploadRecord is where a blob is being sent to. The registry may be told of it
// again by a later push, when this one is interrupted or the daemon dies; it is
// forgotten when the machine goes down.
type uploadRecord struct {
	Session string    `json:"session"` // a URL of the registry's, which may hold a secret of its
	At      time.Time `json:"at"`
}

// uploads remembers uploads that are not at their end, by repository and digest.
type uploads struct {
	records *state.Table[uploadRecord]

	mu     sync.Mutex      // guards active
	active map[string]bool // pushes of this daemon are at work on them
}

func newUploads(db *state.DB) *uploads {
	return &uploads{records: state.NewTable[uploadRecord](db, "image-uploads"), active: map[string]bool{}}
}

// remember has a push go on where an earlier one of the same blob stopped, and a
// later one where this one does. The function it returns is called with what
// came of the push. A second push of a blob that is on its way has a session of
// its own, which nobody remembers: in one they would cut each other off.
func (u *uploads) remember(repository reference.Named, desc ocispec.Descriptor, o *registry.PushOptions) (done func(error)) {
	key := repository.Name() + "@" + desc.Digest.String()
	if desc.Size < minUpload || !u.claim(key) {
		return func(error) {}
	}
	if rec, ok, err := u.records.Get(key); err == nil && ok {
		o.Session = rec.Session
	}
	// All of it is a hint: what is not kept is sent from its beginning.
	o.Sending = func(session string) {
		if session == "" {
			_ = u.records.Delete(key)
			return
		}
		_ = u.records.PutVolatile(key, &uploadRecord{session, time.Now().UTC()})
	}
	return func(err error) {
		if err == nil {
			_ = u.records.Delete(key)
		}
		u.mu.Lock()
		delete(u.active, key)
		u.mu.Unlock()
	}
}

func (u *uploads) claim(key string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active[key] {
		return false
	}
	u.active[key] = true
	return true
}

// dropOld forgets uploads nobody went on with for as long as parts of downloads
// are kept.
func (u *uploads) dropOld() error {
	records, err := u.records.All()
	if err != nil {
		return err
	}
	for key, rec := range records {
		if time.Since(rec.At) > content.PartialAge {
			if err := u.records.Delete(key); err != nil {
				return err
			}
		}
	}
	return nil
}
