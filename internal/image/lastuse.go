package image

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// useGrain is how exactly the last use of an image is remembered beyond the
// life of the daemon, so that not every start of a container writes.
const useGrain = 5 * time.Minute

// useRecord is when an image was used last: a container was made from it, or it
// was named or pushed. It is forgotten when the machine goes down.
type useRecord struct {
	At time.Time `json:"at"`
}

// touch notes that the image is used now.
func (m *Manager) touch(id digest.Digest) {
	now := time.Now().UTC()
	m.useMu.Lock()
	before := m.noted[id]
	m.uses[id] = now
	due := now.Sub(before) >= useGrain
	if due {
		m.noted[id] = now
	}
	m.useMu.Unlock()
	if due {
		// A hint: that it is not kept makes the image look older than it is.
		_ = m.used.PutVolatile(id.String(), &useRecord{now})
	}
}

// lastUse is when an image was used, named or brought in last. The caller holds
// mu.
func (m *Manager) lastUse(e *entry) time.Time {
	m.useMu.Lock()
	last := m.uses[e.id]
	m.useMu.Unlock()
	if e.Added.After(last) {
		last = e.Added
	}
	for _, ref := range m.byRef {
		if ref.ID == e.id && ref.Tagged.After(last) {
			last = ref.Tagged
		}
	}
	return last
}

// restoreUses reads when images were used. That nothing can be read means that
// they count from when they were brought in.
func (m *Manager) restoreUses() {
	records, _ := m.used.All()
	for key, rec := range records {
		id := digest.Digest(key)
		if m.byID[id] == nil {
			continue
		}
		m.uses[id], m.noted[id] = rec.At, rec.At
	}
}

// touchUsed notes the use of every image that has containers, and forgets those
// that are gone.
func (m *Manager) touchUsed() {
	m.mu.RLock()
	ids := make(map[digest.Digest]bool, len(m.byID))
	for id := range m.byID {
		ids[id] = true
	}
	m.mu.RUnlock()
	for id := range ids {
		if len(m.opts.InUse(id)) > 0 {
			m.touch(id)
		}
	}
	m.useMu.Lock()
	var gone []digest.Digest
	for id := range m.uses {
		if !ids[id] {
			delete(m.uses, id)
			delete(m.noted, id)
			gone = append(gone, id)
		}
	}
	m.useMu.Unlock()
	for _, id := range gone {
		_ = m.used.Delete(id.String())
	}
}
