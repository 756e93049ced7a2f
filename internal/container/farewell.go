package container

import (
	"time"

	api "github.com/moby/moby/api/types/container"
)

// farewellTime is how long it is known how a container ended that removed itself.
const farewellTime = time.Minute

// sayFarewell keeps how a container ended that a daemon before this one started
// and that has removed itself. Whoever waited for it asked that daemon, and has to
// ask again, maybe later than the container is gone.
func (m *Manager) sayFarewell(rec *Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.farewells == nil {
		m.farewells = map[string]api.WaitResponse{}
	}
	m.farewells[rec.ID] = rec.waitResponse()
	time.AfterFunc(farewellTime, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.farewells, rec.ID)
	})
}

// farewell is how the container of that ID ended, if it is known still.
func (m *Manager) farewell(id string) (api.WaitResponse, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer, ok := m.farewells[id]
	return answer, ok
}
