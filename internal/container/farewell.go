package container

import (
	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/shim"
)

// maxFarewells is of how many containers that are gone it is known how they
// ended.
const maxFarewells = 1024

// farewell is how a container ended that is gone.
type farewell struct {
	id     string
	answer api.WaitResponse
	public bool // it has removed itself: who waits for it in any way is answered

	// Of a container that Run has created, for WaitConditionFirstExit.
	first  bool
	failed error // its start
}

// sayFarewell keeps how a container ended that is being removed. One that removes
// itself: clients start one and only then wait for it, by when a short one is
// gone: they rely on an engine taking its time. And who waited for it at a daemon
// before this one has to ask again. One that Run has created: its client asks
// while, or after, it runs.
func (m *Manager) sayFarewell(c *Container, rec *Record) {
	f := farewell{id: rec.ID, answer: rec.waitResponse(), public: rec.HostConfig.AutoRemove && rec.HasBeenStarted}
	c.mu.Lock()
	if c.run != nil {
		f.first, f.failed = true, c.run.failed
		if c.run.ended != nil && !f.public {
			f.answer = *c.run.ended
		}
	}
	c.mu.Unlock()
	if !f.public && !f.first {
		return
	}
	m.keepFarewell(f)
}

// farewellOf is sayFarewell for a container that the daemon before this one has removed
// after its end, and died before the shim was told to forget it: its client may not have
// been told either.
func (m *Manager) farewellOf(s *shim.Status) {
	rec := Record{State: State{ExitCode: s.ExitCode, Error: exitError(s)}}
	m.keepFarewell(farewell{id: s.ID, answer: rec.waitResponse(), public: true, first: true})
}

func (m *Manager) keepFarewell(f farewell) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.farewells = append(m.farewells, f)
	if n := len(m.farewells) - maxFarewells; n > 0 {
		m.farewells = append(m.farewells[:0], m.farewells[n:]...)
	}
}

// farewell is for those who wait, by its whole ID, for a container that is gone.
func (m *Manager) farewell(id string, condition api.WaitCondition) (answer api.WaitResponse, failed error, ok bool) {
	first := condition == WaitConditionFirstExit
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.farewells {
		f := &m.farewells[i]
		if f.id != id || !f.public && !(first && f.first) {
			continue
		}
		if first {
			failed = f.failed
		}
		return f.answer, failed, true
	}
	return answer, nil, false
}
