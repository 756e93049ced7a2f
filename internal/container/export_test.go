package container

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
