package shim

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reaper collects orphans: processes that were left to io, the subreaper, by
// parents that died, as a container without a PID namespace of its own may do.
//
// It must not take a child that somebody else waits for. So it looks for
// zombies only while nothing is being started, and leaves those that are known.
type reaper struct {
	starting sync.RWMutex // held shared while somebody forks and waits

	mu    sync.Mutex // guards known
	known map[int]bool
}

// spawning says that children appear which are nobody's orphans until the
// returned function is called.
func (r *reaper) spawning() (done func()) {
	r.starting.RLock()
	return r.starting.RUnlock
}

func (r *reaper) know(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[int]bool{}
	}
	r.known[pid] = true
}

func (r *reaper) forget(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, pid)
}

func (r *reaper) knows(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[pid]
}

// collect reaps all orphans there are. It reports false when it has to be asked
// again, somebody else's zombie being in the way.
func (r *reaper) collect() bool {
	if !r.starting.TryLock() {
		return false
	}
	defer r.starting.Unlock()
	for {
		pid, err := peekZombie()
		switch {
		case err == unix.EINTR:
		case err != nil || pid == 0:
			return true
		case r.knows(pid):
			return false
		default:
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// run collects after each SIGCHLD, once things have settled.
func (r *reaper) run(children <-chan struct{}) {
	for range children {
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
			time.Sleep(wait)
			if r.collect() {
				break
			}
		}
	}
}
