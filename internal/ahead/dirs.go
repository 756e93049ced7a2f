package ahead

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/gantry-containers/gantry/internal/topdir"
)

// keptDirs is how many directories are kept. They cost a few inodes, so that they
// are not given up when nothing happens: the first container after a pause is
// quick too.
const keptDirs = 4

// Dirs are directories made ahead of need, each of which is taken by giving it
// another name: on ext4 that takes a twentieth of the time that making a directory
// takes which has nothing to do with its neighbours (see topdir). They are all in
// one directory that holds nothing else, and that goes with what is in it when Dirs
// are opened and closed: what a process left that was killed needs no care.
//
// None are there when the disk is full or read-only: whoever takes one must be able
// to do without.
type Dirs struct {
	parent   string
	make     func(path string) error
	schedule Schedule // runs fill

	busy   sync.Mutex // held while they are made or removed; guards what follows
	made   int        // numbers the names
	opened bool       // parent is there

	mu     sync.Mutex // guards what follows
	list   []string
	closed bool
}

// OpenDirs removes parent; directories are made in it after the first was asked
// for. make makes the directory of that path whole: what it has left of one when it
// fails is removed.
func OpenDirs(parent string, make func(path string) error) *Dirs {
	_ = os.RemoveAll(parent) // what cannot be removed is the next start's
	d := &Dirs{parent: parent, make: make}
	d.schedule.Fill = d.fill
	return d
}

// Take returns the path of a directory, which is the caller's to rename or remove,
// or "" when there is none. In either case another is made in a while.
func (d *Dirs) Take() string {
	d.schedule.Used()
	d.mu.Lock()
	defer d.mu.Unlock()
	last := len(d.list) - 1
	if last < 0 {
		return ""
	}
	path := d.list[last]
	d.list = d.list[:last]
	return path
}

// fill makes what is missing. Errors are not told: who makes a directory because
// there was none meets the same.
func (d *Dirs) fill() {
	d.busy.Lock()
	defer d.busy.Unlock()
	if !d.wanting() || !d.open() {
		return
	}
	for d.wanting() {
		d.made++
		path := filepath.Join(d.parent, strconv.Itoa(d.made))
		if err := d.make(path); err != nil {
			_ = os.RemoveAll(path)
			return
		}
		d.mu.Lock()
		d.list = append(d.list, path)
		d.mu.Unlock()
	}
}

func (d *Dirs) open() bool {
	if !d.opened {
		if err := os.MkdirAll(d.parent, 0o700); err != nil {
			return false
		}
		topdir.Mark(d.parent)
		d.opened = true
	}
	return true
}

func (d *Dirs) wanting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed && len(d.list) < keptDirs
}

// Close removes what nobody took. From then on there are none.
func (d *Dirs) Close() {
	d.schedule.Stop()
	d.mu.Lock()
	d.closed, d.list = true, nil
	d.mu.Unlock()
	d.busy.Lock()
	defer d.busy.Unlock()
	_ = os.RemoveAll(d.parent)
}
