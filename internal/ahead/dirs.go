package ahead

import (
	"os"
	"path/filepath"
	"slices"
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
// takes which has nothing to do with its neighbours (see topdir). They are all below
// one directory that holds nothing else, and that goes with what is in it when Dirs
// are opened and closed: what a process left that was killed needs no care.
//
// None are there when the disk is full or read-only: whoever takes one must be able
// to do without.
type Dirs struct {
	parent   string
	litter   int // as many are made in one place
	make     func(path string) error
	schedule Schedule // runs fill

	busy   sync.Mutex // held while they are made or removed; guards what follows
	made   int        // numbers the names
	opened bool       // parent is there
	places []string   // of those that are there; the last gets the next ones

	mu     sync.Mutex // guards what follows
	list   []string
	closed bool
}

// OpenDirs removes parent; directories are made in it after the first was asked
// for. make makes the directory of that path whole: what it has left of one when it
// fails is removed.
//
// As many as litter are made in one place. To find one, ext4 looks at all parts of the
// disk, which takes longer than the rest of making a directory. But without a journal
// it also looks, one by one, at the numbers of the files that were removed there in the
// last minute, each time another is made there: where many are, and while somebody
// waits, 1 is best.
func OpenDirs(parent string, litter int, make func(path string) error) *Dirs {
	_ = os.RemoveAll(parent) // what cannot be removed is the next start's
	d := &Dirs{parent: parent, litter: litter, make: make}
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
		place, err := d.place()
		if err != nil {
			return
		}
		d.made++
		path := filepath.Join(place, strconv.Itoa(d.made))
		if err := d.make(path); err != nil {
			_ = os.RemoveAll(path)
			return
		}
		d.mu.Lock()
		d.list = append(d.list, path)
		d.mu.Unlock()
	}
}

// place is where the next directory is made. Places all of whose directories were
// taken are removed when there is another.
func (d *Dirs) place() (string, error) {
	if d.litter == 1 {
		return d.parent, nil
	}
	if d.made%d.litter != 0 && len(d.places) > 0 {
		return d.places[len(d.places)-1], nil
	}
	d.places = slices.DeleteFunc(d.places, func(p string) bool { return os.Remove(p) == nil })
	p := filepath.Join(d.parent, strconv.Itoa(d.made))
	if err := os.Mkdir(p, 0o700); err != nil {
		return "", err
	}
	d.places = append(d.places, p)
	return p, nil
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
