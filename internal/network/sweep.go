package network

import (
	"sync"
	"time"

	"github.com/gantry-containers/gantry/internal/network/rtnl"
)

// sweepDelay is how long a link may outlive its container. Almost always the
// kernel has removed it by then, together with the namespace; removing it
// ourselves would make somebody wait for the kernel's one lock of networking.
const sweepDelay = 100 * time.Millisecond

// sweeper removes the links of containers that are gone, when something else,
// as a container that joined the namespace, keeps that alive.
type sweeper struct {
	m *Manager

	mu      sync.Mutex // guards what follows
	links   []string
	timer   *time.Timer
	stopped bool
}

func (s *sweeper) add(link string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links = append(s.links, link)
	switch {
	case s.stopped:
		return
	case s.timer == nil:
		s.timer = time.AfterFunc(sweepDelay, s.sweep)
	default:
		s.timer.Reset(sweepDelay)
	}
	go s.cutOff(link)
}

// cutOff ends the traffic of the link at once, which costs next to nothing. But
// not even for that should a caller wait for others who configure the network.
func (s *sweeper) cutOff(link string) {
	port, err := s.m.later.Index(link)
	if err != nil {
		return // gone already
	}
	var b rtnl.Batch
	b.DisablePort(port)
	s.m.later.Do(&b) // if it fails, sweep does more
}

func (s *sweeper) sweep() {
	s.mu.Lock()
	links := s.links
	s.links = nil
	s.mu.Unlock()
	for _, link := range links {
		if _, err := s.m.later.Index(link); err == nil {
			var b rtnl.Batch
			b.DelLink(link)
			s.m.later.Do(&b) // Restore tries again after a failure
		}
	}
}

func (s *sweeper) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
