package portproxy

import (
	"sync"

	"golang.org/x/sys/unix"
)

// perConn is how many descriptors a relayed connection may take: its two ends,
// and a pipe for each direction, through which the kernel moves the bytes.
const perConn = 6

// budget is how many connections all ports may have together. Each port may
// take as much again as is left for the others: one that is flooded keeps half,
// the second one a third, and there is always something left for one more. What
// is over waits in the kernel's queue of its port.
type budget struct {
	mu    sync.Mutex // guards what follows, and own of every share
	freed sync.Cond
	left  int
}

// share is what one port has of a budget.
type share struct {
	*budget
	own    int
	closed bool
}

func newBudget(connections int) *budget {
	b := &budget{left: connections}
	b.freed.L = &b.mu
	return b
}

// connections is how many may be had with half of the descriptors of this
// process. The other half is for ports, datagrams, and what io has net hold.
func connections() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		limit.Cur = 1024
	}
	return int(max(16, min(limit.Cur, 1<<20)/2/perConn))
}

// take waits until there is room for a connection; false when the port was
// closed meanwhile.
func (s *share) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && s.own >= s.left {
		s.freed.Wait()
	}
	if s.closed {
		return false
	}
	s.own++
	s.left--
	return true
}

func (s *share) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own--
	s.left++
	s.freed.Broadcast()
}

// close ends all waiting.
func (s *share) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.freed.Broadcast()
}
