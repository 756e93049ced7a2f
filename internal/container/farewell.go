package container

import api "github.com/moby/moby/api/types/container"

// maxFarewells is of how many containers that removed themselves it is known how
// they ended.
const maxFarewells = 1024

// farewell is how a container ended that has removed itself.
type farewell struct {
	id     string
	answer api.WaitResponse
}

// sayFarewell keeps how a container ended that removes itself. Clients start one
// and only then wait for it, by when a short one is gone: they rely on an engine
// taking its time. And who waited for it at a daemon before this one has to ask
// again.
func (m *Manager) sayFarewell(rec *Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.farewells = append(m.farewells, farewell{rec.ID, rec.waitResponse()})
	if n := len(m.farewells) - maxFarewells; n > 0 {
		m.farewells = append(m.farewells[:0], m.farewells[n:]...)
	}
}

// farewell is for those who wait, by its whole ID, for a container that has
// removed itself.
func (m *Manager) farewell(id string) (api.WaitResponse, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.farewells {
		if m.farewells[i].id == id {
			return m.farewells[i].answer, true
		}
	}
	return api.WaitResponse{}, false
}
