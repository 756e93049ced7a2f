package shim

import "context"

// DropPending lets go of every client that is attached to a process which was
// never started. A daemon calls it when it begins: who was to start those
// processes is dead, and their clients would wait for ever.
func (c *Client) DropPending(ctx context.Context) error {
	return c.call(ctx, "drop-pending", nil, nil, nil, true)
}

func (h *Holder) dropPending() {
	h.mu.Lock()
	all := h.pending
	h.pending = map[key][]*client{}
	h.mu.Unlock()
	for _, waiting := range all {
		for _, c := range waiting {
			c.endPending()
			c.finish()
		}
	}
}
