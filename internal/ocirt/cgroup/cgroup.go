package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Cgroup is one path in every hierarchy of the machine. Its methods may be
// called from several goroutines, except Create, Set and Delete, which the
// caller keeps apart.
type Cgroup struct {
	path string
	lay  *layout
	err  error // why the path or the machine is unusable; reported by Create
	// needUnified asks for a directory in the v2 hierarchy of a hybrid machine.
	// It is made only for who asked for something that lives there: moving a
	// process costs a grace period of RCU per v2 hierarchy.
	needUnified bool
}

// New names a cgroup by its path, relative to the mount point of each
// hierarchy: "/gantry/<id>". It does no I/O in that path; a bad path is
// reported by Create.
func New(p string) *Cgroup {
	lay, err := machine()
	if err != nil {
		err = fmt.Errorf("cannot find the cgroups of this machine: %w", err)
	}
	return newAt(lay, err, p)
}

func newAt(lay *layout, err error, p string) *Cgroup {
	c := &Cgroup{path: path.Clean("/" + p), lay: lay, err: err}
	if lay == nil {
		c.lay = &layout{}
	}
	if c.err == nil && c.path == "/" {
		c.err = errs.InvalidArgument("invalid cgroup path %q: the root cgroup is not a container's", p)
	}
	if c.err == nil && len(c.lay.hierarchies) == 0 {
		c.err = errs.Unavailable("this machine has no cgroup file system mounted")
	}
	return c
}

// Load is New for a cgroup that exists already. The error is ErrNotFound when
// it exists in no hierarchy.
func Load(p string) (*Cgroup, error) {
	c := New(p)
	if c.err != nil {
		return nil, c.err
	}
	if h := c.lay.unified(); h != nil && c.lay.mode == Hybrid {
		c.needUnified = exists(filepath.Join(h.mount, c.path))
	}
	if !c.Exists() {
		return nil, errs.NotFound("no such cgroup: %s", c.path)
	}
	return c, nil
}

// Path returns the path, relative to the root of each hierarchy.
func (c *Cgroup) Path() string { return c.path }

// Plan says which limits the cgroup is going to be made with. ProcsFiles then lists
// what there will be.
func (c *Cgroup) Plan(res *specs.LinuxResources) {
	c.needUnified = c.needUnified || res != nil && c.wantsUnified(res)
}

// Exists reports whether there is a directory of the cgroup in any hierarchy.
func (c *Cgroup) Exists() bool {
	return slices.ContainsFunc(c.dirs(), exists)
}

// used lists the hierarchies in which the cgroup has a directory.
func (c *Cgroup) used() []*hierarchy {
	hs := make([]*hierarchy, 0, len(c.lay.hierarchies))
	for i := range c.lay.hierarchies {
		h := &c.lay.hierarchies[i]
		if h.v2 && c.lay.mode == Hybrid && !c.needUnified {
			continue
		}
		hs = append(hs, h)
	}
	return hs
}

// dirs lists the directories of the cgroup, one in each hierarchy used.
func (c *Cgroup) dirs() []string {
	hs := c.used()
	ds := make([]string, len(hs))
	for i, h := range hs {
		ds[i] = filepath.Join(h.mount, c.path)
	}
	return ds
}

// dir returns the directory in the hierarchy that holds a controller (named as
// in v1) and whether it is v2; "" when the machine has not got the controller.
func (c *Cgroup) dir(controller string) (d string, v2 bool) {
	h := c.lay.find(controller)
	if h == nil {
		h = c.lay.find(v2Name(controller))
		if h == nil || !h.v2 {
			return "", false
		}
	}
	return filepath.Join(h.mount, c.path), h.v2
}

// Dir returns the directory of the cgroup in the hierarchy that holds a
// controller, or "" when the machine has not got the controller.
func (c *Cgroup) Dir(controller string) string {
	d, _ := c.dir(controller)
	return d
}

// Create makes the directories and applies res, which may be nil. Devices are
// denied except those the runtime-spec calls default devices and those res
// allows. An error leaves nothing behind that was not there before.
//
// A controller the machine has not got is an error only when res asks for it.
func (c *Cgroup) Create(res *specs.LinuxResources) error { return c.CreateFrom(nil, res) }

// CreateFrom is Create of a spare that suits (Spare.Suits), or of none, nil. The
// spare is used up; the caller closes it when nobody needs its files any more.
func (c *Cgroup) CreateFrom(s *Spare, res *specs.LinuxResources) (err error) {
	if c.err != nil {
		return errors.Join(c.err, s.Discard())
	}
	if res == nil {
		res = &specs.LinuxResources{}
	}
	c.Plan(res)
	made, err := s.become(c.path)
	if err != nil {
		return fmt.Errorf("cannot create cgroup %s: %w", c.path, err)
	}
	ready := made != nil
	defer func() {
		if err != nil && s.evict() {
			for _, d := range slices.Backward(made) {
				_ = unix.Rmdir(d)
			}
		}
	}()
	for _, h := range c.used() {
		if ready && !h.v2 {
			continue
		}
		m, err := c.makeDir(h)
		made = append(made, m...)
		if err != nil {
			return fmt.Errorf("cannot create cgroup %s: %w", c.path, err)
		}
	}
	if !ready {
		if err := c.applyDevices(res.Devices, true); err != nil {
			return err
		}
	}
	return c.apply(res)
}

// Set changes the limits res names and leaves the others as they are. Devices
// are replaced when res has any.
func (c *Cgroup) Set(res *specs.LinuxResources) error {
	if c.err != nil {
		return c.err
	}
	if res == nil {
		return nil
	}
	if c.wantsUnified(res) && !c.needUnified {
		return errs.NotImplemented("cannot change v2 limits of cgroup %s: it was created without a directory in the v2 hierarchy of this hybrid machine", c.path)
	}
	if len(res.Devices) > 0 {
		if err := c.applyDevices(res.Devices, false); err != nil {
			return err
		}
	}
	return c.apply(res)
}

// wantsUnified says whether, on a hybrid machine, res asks for something that
// lives in the v2 hierarchy.
func (c *Cgroup) wantsUnified(res *specs.LinuxResources) bool {
	if c.lay.mode != Hybrid {
		return false
	}
	in := func(controller string) bool { _, v2 := c.dir(controller); return v2 }
	return len(res.Unified) > 0 ||
		len(res.HugepageLimits) > 0 && in("hugetlb") ||
		res.Memory != nil && in("memory") ||
		res.CPU != nil && (in("cpu") || in("cpuset")) ||
		res.Pids != nil && in("pids") ||
		res.BlockIO != nil && in("blkio") ||
		len(res.Rdma) > 0 && in("rdma")
}

// makeDir makes the directory in one hierarchy with its parents and returns
// what it made, outermost first.
func (c *Cgroup) makeDir(h *hierarchy) (made []string, err error) {
	dir := h.mount
	for elem := range strings.SplitSeq(c.path[1:], "/") {
		if h.v2 {
			enableControllers(dir)
		}
		dir += "/" + elem
		switch err := unix.Mkdir(dir, 0o755); {
		case err == nil:
			made = append(made, dir)
		case !errors.Is(err, unix.EEXIST):
			return made, &fs.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		if !h.v2 && slices.Contains(h.controllers, "cpuset") {
			if err := inheritCpuset(dir); err != nil {
				return made, err
			}
		}
	}
	return made, nil
}

// apply writes every limit res has, except devices.
func (c *Cgroup) apply(res *specs.LinuxResources) error {
	for _, step := range []func(*specs.LinuxResources) error{
		c.applyPids, c.applyMemory, c.applyCPU, c.applyCpuset, c.applyBlockIO,
		c.applyHugetlb, c.applyNetwork, c.applyRdma, c.applyUnified,
	} {
		if err := step(res); err != nil {
			return err
		}
	}
	return nil
}

// Add moves a process and all its threads into the cgroup.
func (c *Cgroup) Add(pid int) error {
	for _, d := range c.dirs() {
		if err := writeFile(filepath.Join(d, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			if errors.Is(err, unix.ESRCH) {
				return errs.NotFound("cannot move process %d into cgroup %s: it has ended", pid, c.path)
			}
			return fmt.Errorf("cannot move process %d into cgroup %s: %w", pid, c.path, err)
		}
	}
	return nil
}

// ProcsFiles lists the files a process is moved by, in order: one per
// hierarchy on v1, a single cgroup.procs on v2.
//
// A process that has one thread should write "0" to each of them itself, rather
// than have its parent write its PID: on v1 the files are the "tasks" files, and
// for the writing thread alone the kernel need not stop every fork and exit of
// the machine. That is 10 µs a file instead of a 10 ms wait for RCU.
func (c *Cgroup) ProcsFiles() []string {
	hs := c.used()
	files := make([]string, len(hs))
	for i, h := range hs {
		name := "tasks"
		if h.v2 {
			name = "cgroup.procs"
		}
		files[i] = filepath.Join(h.mount, c.path, name)
	}
	return files
}

// FD opens the directory for CLONE_INTO_CGROUP (clone3, v2); the caller closes
// it. It is nil, without an error, on legacy and hybrid machines.
func (c *Cgroup) FD() (*os.File, error) {
	if c.lay.mode != Unified {
		return nil, nil
	}
	dir := c.dirs()[0]
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// busyFor bounds how long Delete waits for the kernel to let go of processes
// that have just ended.
const busyFor = 2 * time.Second

// Delete removes the directories and those below them. It is no error when they
// are gone already. Processes that have been killed but not yet left are waited
// for briefly; the error is ErrConflict (and EBUSY) when some stay.
func (c *Cgroup) Delete() error {
	if c.err != nil {
		return c.err
	}
	dirs := c.dirs()
	if h := c.lay.unified(); h != nil && !c.needUnified && c.lay.mode == Hybrid {
		dirs = append(dirs, filepath.Join(h.mount, c.path))
	}
	deadline := time.Now().Add(busyFor)
	for _, d := range dirs {
		if err := removeTree(d, deadline); err != nil {
			if errors.Is(err, unix.EBUSY) {
				return errs.Conflict("cannot remove cgroup %s: processes are left in it: %w", c.path, err)
			}
			return fmt.Errorf("cannot remove cgroup %s: %w", c.path, err)
		}
	}
	return nil
}

// removeTree removes a cgroup directory, children first. The plain rmdir is
// tried first: it is the common case, and a cgroup with children refuses it.
func removeTree(dir string, deadline time.Time) error {
	wait := time.Millisecond
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		subs, _ := os.ReadDir(dir)
		for _, s := range subs {
			if s.IsDir() {
				if err := removeTree(filepath.Join(dir, s.Name()), deadline); err != nil {
					return err
				}
			}
		}
		if time.Now().After(deadline) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: unix.EBUSY}
		}
		time.Sleep(wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
}
