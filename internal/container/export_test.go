package container

import (
	"errors"
	"net"
)

// StartWaits tells whether a start waits for a client that is being attached.
func (m *Manager) StartWaits(ref string) bool {
	c, err := m.lookup(ref)
	if err != nil || !c.attaching.TryRLock() {
		return err == nil
	}
	c.attaching.RUnlock()
	return false
}

// Keeps tells whether a client is kept for the next start of a container.
func (m *Manager) Keeps(ref string) bool {
	c, err := m.lookup(ref)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.early) > 0
}

// Tells tells whether a client is to be told how the first run of a container ends.
func (m *Manager) Tells(ref string) bool {
	c, err := m.lookup(ref)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run != nil && c.run.line != nil
}

// Say tells a client how a run ended, on a connection that nobody else writes to.
func Say(conn net.Conn, e *Ending) error {
	c := &Container{run: &firstRun{}}
	if !c.keepLine(conn) {
		return errors.New("the connection is not kept")
	}
	c.freeLine()
	c.takeLine().say(e)
	return nil
}
