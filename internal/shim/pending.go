package shim

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DropPending lets go of every client that is attached to a process which was
// never started. A daemon calls it when it begins: who was to start those
// processes is dead, and their clients would wait for ever.
func (c *Client) DropPending(ctx context.Context) error {
	return c.call(ctx, "drop-pending", nil, nil, nil, true)
}

// dropPending ends the streams of all clients that wait for a process and of
// which drop says so.
func (h *Holder) dropPending(drop func(*client) bool) {
	var ended []*client
	h.mu.Lock()
	for k, waiting := range h.pending {
		var stay []*client
		for _, c := range waiting {
			if drop(c) {
				ended = append(ended, c)
			} else {
				stay = append(stay, c)
			}
		}
		if h.pending[k] = stay; len(stay) == 0 {
			delete(h.pending, k)
		}
	}
	h.mu.Unlock()
	for _, c := range ended {
		c.endPending()
		c.finish()
	}
}

// bereave ends the streams of clients that wait for what a daemon was to start,
// if that daemon is dead or dies now. It does not wait for the next one, which
// may never come.
func (h *Holder) bereave(daemon int) {
	if daemon > 0 && died(daemon) {
		h.guarded(func() { h.dropPending(func(c *client) bool { return c.by == daemon }) })
	}
}

// died reports whether the process is dead, and waits a while for the end of one
// whose descriptors are closed already.
func died(pid int) bool {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err == unix.ESRCH {
		return true
	}
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		return false
	}
	f.SetReadDeadline(time.Now().Add(2 * time.Second))
	return rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0
	}) == nil
}
