package shim

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/ahead"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// spareCgroups is how many are kept while containers are being started.
const spareCgroups = 2

// spareLife is how long after the last start spares are kept.
var spareLife = ahead.Life

// spares are cgroups made ahead, on cgroup v1, with a process in each, for the next
// container that is like the last. The processes end with this one. The cgroups
// have directories, which outlive it when it is killed: the parent they are in is
// written down while there are any, and the next io sweeps them.
type spares struct {
	execRoot string
	log      *slog.Logger
	gate     *gate
	orphans  *reaper         // must leave their processes
	base     func() *os.File // the mount namespace containers start from, or nil

	busy  sync.Mutex // held while spares are made or given up; guards what follows
	noted string     // the parent that is written down
	made  int        // numbers the names

	mu     sync.Mutex // guards what follows
	list   []*ocirt.Spare
	want   wanted
	closed bool

	schedule ahead.Schedule // runs fill and expire
}

func newSpares(h *Holder) *spares {
	p := &spares{execRoot: h.execRoot, log: h.log, gate: h.gate, orphans: &h.orphans, base: h.base}
	p.schedule.Fill, p.schedule.Expire, p.schedule.Life = p.fill, p.expire, spareLife
	return p
}

// wanted is what spares are to be like: the last container.
type wanted struct {
	parent string // of its cgroup
	spec   *specs.Spec
}

// take returns a spare that suits, or nil, and has another made in a while. The
// caller has told orphans that it is spawning.
func (p *spares) take(name string, spec *specs.Spec) *ocirt.Spare {
	if cgroup.Detect() == cgroup.Unified {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want = wanted{path.Dir(name), spec}
	p.schedule.Used()
	i := -1
	for j, s := range p.list {
		suits, same := s.Suits(name, spec)
		if suits {
			i = j
		}
		if suits && same {
			break
		}
	}
	if i < 0 {
		return nil
	}
	s := p.list[i]
	p.list = slices.Delete(p.list, i, i+1)
	p.orphans.forget(s.Pid())
	return s
}

// fill makes spares like the last cgroup wanted, in place of others. It is inside
// the gate: an upgrade leaves none half made.
func (p *spares) fill() {
	p.gate.enter()
	defer p.gate.leave()
	p.busy.Lock()
	defer p.busy.Unlock()
	p.mu.Lock()
	want := p.want
	p.mu.Unlock()
	p.drop(p.unlike(want))
	for p.wanting(want) {
		s, err := p.make(want)
		if err != nil {
			p.log.Warn("containers start slower", "error", err)
			return
		}
		p.mu.Lock()
		p.list = append(p.list, s)
		p.mu.Unlock()
	}
}

func (p *spares) wanting(want wanted) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && want.parent != "" && len(p.list) < spareCgroups
}

// make makes a spare, and a note of where it is before. p.busy is held, and there
// are none in another parent.
func (p *spares) make(want wanted) (*ocirt.Spare, error) {
	if want.parent != p.noted {
		if err := os.WriteFile(p.note(), []byte(want.parent), 0o600); err != nil {
			return nil, err
		}
		p.noted = want.parent
	}
	p.made++
	defer p.orphans.spawning()()
	s, err := ocirt.NewSpare(context.Background(), p.base(), path.Join(want.parent, fmt.Sprint(sparePrefix(p.execRoot), p.made)), want.spec)
	if err == nil {
		p.orphans.know(s.Pid())
	}
	return s, err
}

// unlike takes the spares out of the list of which what is wanted cannot be made.
func (p *spares) unlike(want wanted) (others []*ocirt.Spare) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(s *ocirt.Spare) bool {
		suits, same := s.Suits(path.Join(want.parent, "any"), want.spec)
		if !suits || !same {
			others = append(others, s)
		}
		return !suits || !same
	})
	return others
}

// drop gives up spares that are not in the list any more.
func (p *spares) drop(list []*ocirt.Spare) {
	for _, s := range list {
		pid := s.Pid()
		if err := s.Discard(); err != nil {
			p.log.Error("cannot remove a spare cgroup", "error", err)
		}
		p.orphans.forget(pid)
	}
}

func (p *spares) expire() {
	p.gate.enter()
	defer p.gate.leave()
	p.clear()
}

// clear gives all spares up. Inside the gate, or when it is shut.
func (p *spares) clear() {
	p.busy.Lock()
	defer p.busy.Unlock()
	p.mu.Lock()
	list := p.list
	p.list, p.want = nil, wanted{}
	p.mu.Unlock()
	p.drop(list)
	spawn.DropSpareMemory()
	os.Remove(p.note())
	p.noted = ""
}

// close gives all spares up for good.
func (p *spares) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.schedule.Stop()
	p.clear()
}

// note is where the parent of the spares is written down.
func (p *spares) note() string { return filepath.Join(p.execRoot, "spares") }

// sweep removes the spares of an io that was killed.
func (p *spares) sweep() {
	parent, err := os.ReadFile(p.note())
	if err != nil {
		return
	}
	if err := cgroup.SweepSpares(string(parent), sparePrefix(p.execRoot)); err != nil {
		p.log.Error("spare cgroups are left", "error", err)
	}
	os.Remove(p.note())
}

// sparePrefix begins the names of spares. They say whose they are, and hide.
func sparePrefix(execRoot string) string { return "." + CgroupName(execRoot)[1:] + "-spare-" }
