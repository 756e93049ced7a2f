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
