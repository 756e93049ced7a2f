package ocirt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// Spare is most of a container, made ahead: a cgroup, on cgroup v1, and a process
// that waits in it, in namespaces of its own, to become the container's first.
// Where there can be no such process there is none, and the cgroup is used alone.
type Spare struct {
	*cgroup.Spare
	process     *spawn.Spare        // or nil
	startTime   uint64              // of the process
	trees       *trees              // the process has made, or nil
	hierarchies map[string]*os.File // without trees: detached copies of the cgroup's directories
}

// spareFlags are the namespaces a spare process has: the ones that are neither
// joined nor depend on something else, of a container as most are.
const spareFlags = unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID

// NewSpare makes a spare in the cgroup p for containers like the one specified,
// whose cgroups have the same parent and the same device rules (cgroup.NewSpare),
// and whose mount namespaces are copies of base, or nil, when there is but the
// cgroup. The caller owns it, is the parent of its process, and must not wait for
// "any child" as long as it is neither started nor discarded.
func NewSpare(ctx context.Context, base *os.File, p string, spec *specs.Spec) (*Spare, error) {
	cg, err := cgroup.NewSpare(p, devicesOf(spec))
	if err != nil {
		return nil, err
	}
	s := &Spare{Spare: cg, hierarchies: map[string]*os.File{}, trees: treesOf(spec)}
	cg.Occupy(s.leave)
	if base == nil {
		return s, nil
	}
	if err := s.fork(ctx, base); err != nil {
		return nil, errors.Join(err, s.Discard())
	}
	return s, nil
}

func devicesOf(spec *specs.Spec) []specs.LinuxDeviceCgroup {
	if spec.Linux == nil || spec.Linux.Resources == nil {
		return nil
	}
	return spec.Linux.Resources.Devices
}

// Suits says whether Start can make the cgroup p of the spare for a container. It
// takes longer when the trees are not the same.
func (s *Spare) Suits(p string, spec *specs.Spec) (suits, same bool) {
	var res *specs.LinuxResources
	if spec.Linux != nil {
		res = spec.Linux.Resources
	}
	return s.Spare.Suits(p, res), s.trees.equal(treesOf(spec))
}

// hasTrees says whether there are trees, and they are those of a specification.
func (s *Spare) hasTrees(spec *specs.Spec) bool {
	return s.trees != nil && s.trees.equal(treesOf(spec))
}

// fork makes the process. Without trees it opens the directories of the cgroup for
// the container's mounts of them, by when they have another name.
func (s *Spare) fork(ctx context.Context, base *os.File) error {
	var b *builder
	attr := &spawn.Attr{Flags: spareFlags, Floor: 3}
	process, err := spawn.NewSpare(ctx, attr, func(p *spawn.Program) (err error) {
		b = newBuilder(p, s.trees.spec(), nil, nil)
		b.ns.fresh = spareFlags | unix.CLONE_NEWNS
		b.cgroup, b.based = s.Spare.Cgroup(), true
		if b.baseFD, err = b.pass(base); err != nil {
			return err
		}
		for _, f := range s.TasksFiles() {
			fd, err := b.pass(f)
			if err != nil {
				return err
			}
			b.Doing("join", "cgroup "+filepath.Dir(f.Name()))
			b.Sys(unix.SYS_WRITE, fd, p.Str("0"), spawn.Int(1))
		}
		if err := b.planMounts(); err != nil {
			return err
		}
		if err := b.makeTrees(s.trees); err != nil {
			return err
		}
		attr.Keep = b.keep
		return b.hurry()
	})
	if b != nil {
		b.close()
	}
	if err != nil {
		return err
	}
	s.process = process
	if s.startTime, err = startTime(process.Pid()); err != nil {
		return err
	}
	defer s.Close() // who should have to join after all can look for the files
	if s.trees != nil {
		return nil
	}
	for _, f := range s.TasksFiles() {
		dir := filepath.Dir(f.Name())
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, uint(openTreeFlags(false)))
		if err != nil {
			return &os.PathError{Op: "open_tree", Path: dir, Err: err}
		}
		name := filepath.Base(strings.TrimSuffix(dir, s.Spare.Cgroup().Path()))
		s.hierarchies[name] = os.NewFile(uintptr(fd), dir)
	}
	return nil
}

// hurry gives the child the scheduling policy of this process, which that of the
// thread that forks it need not be.
func (b *builder) hurry() error {
	attr, err := unix.SchedGetAttr(os.Getpid(), 0)
	if err != nil {
		return err
	}
	b.Sys(unix.SYS_SCHED_SETATTR, spawn.Int(0), b.Struct(unsafe.Pointer(attr), unsafe.Sizeof(*attr)), spawn.Int(0))
	return nil
}

// Pid is the process that waits; 0 for none.
func (s *Spare) Pid() int {
	if !s.waits() {
		return 0
	}
	return s.process.Pid()
}

// drop ends the process, if it was not started, and forgets it: one that was is
// dead, or the caller's. The cgroup, or what it has become, stays.
func (s *Spare) drop() {
	if s == nil {
		return
	}
	s.process.Discard()
	s.process = nil
}

// close gives up what nobody needs who has started.
func (s *Spare) close() {
	if s == nil {
		return
	}
	s.Close()
	for _, f := range s.hierarchies {
		f.Close()
	}
}

// Discard removes a spare that is not needed any more.
func (s *Spare) Discard() error {
	s.close()
	return s.Spare.Discard()
}

// waits says whether there is a process in s, which may be nil.
func (s *Spare) waits() bool { return s != nil && s.process != nil }

// leave ends the process unless it was started, which it reports.
func (s *Spare) leave() bool {
	if s.process != nil && s.process.Used() {
		return false
	}
	s.drop()
	return true
}

// cgroup is the cgroup of s, which may be nil.
func (s *Spare) cgroup() *cgroup.Spare {
	if s == nil {
		return nil
	}
	return s.Spare
}

// processFor is the process to start c in, which has such namespaces and is in
// its cgroup already; nil when there is none, or it does not suit, and is gone
// then.
func (s *Spare) processFor(c *Container, ns *namespaces, cg *cgroup.Cgroup) *spawn.Spare {
	if !s.waits() {
		return nil
	}
	if s.trees != nil && !s.hasTrees(c.Spec) || !usesBase(c, ns) || ns.cloneFlags()&^unix.CLONE_NEWNS != spareFlags || c.StartFIFO != "" || unified(cg) {
		s.drop()
		return nil
	}
	return s.process
}

// unified says whether a cgroup has a directory in a v2 hierarchy, which a
// process is best born in.
func unified(cg *cgroup.Cgroup) bool {
	for _, file := range cg.ProcsFiles() {
		if filepath.Base(file) == "cgroup.procs" && cgroup.Detect() != cgroup.Legacy {
			return true
		}
	}
	return false
}
