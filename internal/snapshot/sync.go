package snapshot

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// syncer makes the file system of a directory durable. Those who ask while one
// sync runs share the next: a pull of ten layers waits for two, not for ten.
type syncer struct {
	dir string

	mu      sync.Mutex // guards the rest
	running bool
	waiting []chan error
}

func newSyncer(dir string) *syncer { return &syncer{dir: dir} }

// syncFS returns once everything written before the call is on disk.
func (s *syncer) syncFS() error {
	done := make(chan error, 1)
	s.mu.Lock()
	s.waiting = append(s.waiting, done)
	if !s.running {
		s.running = true
		go s.run()
	}
	s.mu.Unlock()
	return <-done
}

func (s *syncer) run() {
	for {
		s.mu.Lock()
		batch := s.waiting
		s.waiting = nil
		if len(batch) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		err := s.withDir(unix.Syncfs)
		for _, done := range batch {
			done <- err
		}
	}
}

// syncDir makes the names in the directory durable.
func (s *syncer) syncDir() error { return s.withDir(unix.Fsync) }

func (s *syncer) withDir(f func(fd int) error) error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := f(int(d.Fd())); err != nil {
		return fmt.Errorf("cannot sync %s to disk: %w", s.dir, err)
	}
	return nil
}
