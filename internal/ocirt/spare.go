package ocirt

import (
	"context"
	"errors"
	"os"
	"path/filepath"

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
	process *spawn.Spare        // or nil
	trees   map[string]*os.File // detached copies of its directories, by hierarchy
}

// spareFlags are the namespaces a spare process has: the ones that are neither
// joined nor depend on something else, of a container as most are.
const spareFlags = unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID

// NewSpare makes a spare in the cgroup p for containers whose cgroups have the
// same parent and the same device rules (cgroup.NewSpare). The caller owns it, is
// the parent of its process, and must not wait for "any child" as long as it is
// neither started nor discarded.
func NewSpare(ctx context.Context, p string, devices []specs.LinuxDeviceCgroup) (*Spare, error) {
	cg, err := cgroup.NewSpare(p, devices)
	if err != nil {
		return nil, err
	}
	attr := &spawn.Attr{Flags: spareFlags, Floor: 3}
	tasks := cg.TasksFiles()
	for _, f := range tasks {
		attr.Keep = append(attr.Keep, int(f.Fd()))
	}
	process, err := spawn.NewSpare(ctx, attr, func(p *spawn.Program) error {
		for _, f := range tasks {
			p.Doing("join", "cgroup "+filepath.Dir(f.Name()))
			p.Sys(unix.SYS_WRITE, spawn.Int(int(f.Fd())), p.Str("0"), spawn.Int(1))
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, cg.Discard())
	}
	s := &Spare{cg, process, map[string]*os.File{}}
	cg.Occupy(s.leave)
	for _, f := range tasks {
		dir := filepath.Dir(f.Name())
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, uint(openTreeFlags(false)))
		if err != nil {
			return nil, errors.Join(&os.PathError{Op: "open_tree", Path: dir, Err: err}, s.Discard())
		}
		s.trees[filepath.Base(filepath.Dir(dir[:len(dir)-len(p)]+"/x"))] = os.NewFile(uintptr(fd), dir)
	}
	return s, nil
}

// Pid is the process that waits. There is one until s is started or discarded.
func (s *Spare) Pid() int { return s.process.Pid() }

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
	for _, f := range s.trees {
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
	if !usesBase(c, ns) || ns.cloneFlags()&^unix.CLONE_NEWNS != spareFlags || c.StartFIFO != "" || unified(cg) {
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
