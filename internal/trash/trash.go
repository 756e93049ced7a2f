// Package trash takes directory trees apart when nobody is in a hurry.
//
// Ending a container takes a rename; deleting its files takes longer than all
// the rest of its end, and would compete with the start of the next one. A Bin
// remembers what is to go and deletes it in a quiet moment. It owns nothing: a
// path that was thrown is one that the next start of its owner would sweep away,
// so that a crash needs no care.
package trash

import (
	"os"
	"sync"
	"time"
)

// The patience of a Bin: it begins when nothing was thrown for a moment, or when
// much has come together; and when far too much has, whoever throws more deletes
// it himself, so that no more is left than is made.
const (
	quiet  = 25 * time.Millisecond
	plenty = 256
	full   = 1024
)

// Bin deletes paths later. The zero value is ready for use, by several
// goroutines.
type Bin struct {
	mu      sync.Mutex // guards the fields below
	paths   []string
	last    time.Time // of the last Throw
	working bool
	idle    sync.Cond // for Wait; its locker is set with the first wait
}

// Throw deletes path and everything below it soon. Nobody must use the name
// again. Failures are nobody's concern but the next start's.
func (b *Bin) Throw(path string) {
	b.mu.Lock()
	if len(b.paths) >= full {
		b.mu.Unlock()
		_ = os.RemoveAll(path)
		return
	}
	b.paths = append(b.paths, path)
	b.last = time.Now()
	start := !b.working
	b.working = true
	b.mu.Unlock()
	if start {
		go b.work()
	}
}

// work runs until the bin is empty.
func (b *Bin) work() {
	for {
		path, pause, ok := b.next()
		switch {
		case !ok:
			return
		case pause > 0:
			time.Sleep(pause)
		default:
			_ = os.RemoveAll(path)
		}
	}
}

// next returns what to delete now, or how long to leave everything as it is.
func (b *Bin) next() (path string, pause time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.paths) == 0 {
		b.working, b.paths = false, nil
		if b.idle.L != nil {
			b.idle.Broadcast()
		}
		return "", 0, false
	}
	if pause := quiet - time.Since(b.last); pause > 0 && len(b.paths) < plenty {
		return "", pause, true
	}
	path, b.paths = b.paths[0], b.paths[1:]
	return path, 0, true
}

// Wait returns when everything thrown before is gone from the disk, or could not
// be deleted.
func (b *Bin) Wait() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle.L = &b.mu
	for b.working {
		b.idle.Wait()
	}
}
