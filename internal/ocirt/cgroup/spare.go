package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Spare is a cgroup that nobody is in yet, with its device rules in force. Making
// one in every hierarchy of v1 is the longest part of starting a process in a
// cgroup; v1 lets a directory be renamed beside itself, which is quick (v2 does
// not, and there is only one directory to make).
//
// It holds its tasks files open, so that who joins need not look them up. Its
// methods do nothing with nil, and are called by one goroutine at a time.
type Spare struct {
	cg     *Cgroup
	rules  []rule
	cpuset string      // what the parent handed down
	tasks  []*os.File  // as in cg.ProcsFiles; none once closed
	leave  func() bool // see Occupy
}

// NewSpare makes a cgroup that CreateFrom may turn into another of the same
// parent with the same device rules. The caller owns it, and its name: nothing
// else may be there.
func NewSpare(p string, devices []specs.LinuxDeviceCgroup) (*Spare, error) {
	if Detect() == Unified {
		return nil, errs.NotImplemented("cannot make cgroup %s ahead: cgroup v2 cannot rename it", p)
	}
	rules, err := parseRules(devices)
	if err != nil {
		return nil, err
	}
	s := &Spare{cg: New(p), rules: rules}
	if err := s.cg.Create(&specs.LinuxResources{Devices: devices}); err != nil {
		return nil, err
	}
	s.cpuset = s.cg.parentCpuset()
	for _, file := range s.cg.ProcsFiles() {
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(&fs.PathError{Op: "open", Path: file, Err: err}, s.Discard())
		}
		s.tasks = append(s.tasks, os.NewFile(uintptr(fd), file))
	}
	return s, nil
}

// Occupy says that a process waits in the spare. When the spare is discarded, or
// cannot become what it was to, leave is called first: a cgroup with a process in
// it cannot be removed. It reports whether nobody is in there any more. Who stays
// is the process of a container that is being started: that fails then.
func (s *Spare) Occupy(leave func() bool) { s.leave = leave }

// evict makes who waits in the spare leave, and reports whether it is empty.
func (s *Spare) evict() bool { return s == nil || s.leave == nil || s.leave() }

// Cgroup is the cgroup as it is now.
func (s *Spare) Cgroup() *Cgroup { return s.cg }

// Suits says whether CreateFrom can make the cgroup p with res of the spare, so
// that nobody could tell it from one that was made anew.
func (s *Spare) Suits(p string, res *specs.LinuxResources) bool {
	if s == nil || path.Dir(path.Clean("/"+p)) != path.Dir(s.cg.path) {
		return false
	}
	var devices []specs.LinuxDeviceCgroup
	if res != nil {
		devices = res.Devices
	}
	rules, err := parseRules(devices)
	return err == nil && slices.Equal(rules, s.rules) && s.cg.parentCpuset() == s.cpuset
}

// parentCpuset is what a cgroup beside c would inherit; "" without cpusets.
func (c *Cgroup) parentCpuset() string {
	dir, v2 := c.dir("cpuset")
	if dir == "" || v2 {
		return ""
	}
	cpus, _ := readFile(filepath.Join(filepath.Dir(dir), "cpuset.cpus"))
	mems, _ := readFile(filepath.Join(filepath.Dir(dir), "cpuset.mems"))
	return cpus + mems
}

// ErrInTheWay is why a spare with a process in it that stays cannot become a cgroup:
// there is such a one already. The spare is as it was.
var ErrInTheWay = errors.New("there is such a cgroup already")

// become renames the spare and lists the directories it has now. When that cannot
// be done, because there is such a cgroup already, it discards the spare, and
// there are none. With a process in it that stays it is ErrInTheWay.
func (s *Spare) become(p string) (dirs []string, err error) {
	if s == nil {
		return nil, nil
	}
	for _, h := range s.cg.used() {
		dir := filepath.Join(h.mount, p)
		if err := unix.Rename(filepath.Join(h.mount, s.cg.path), dir); err != nil {
			if !s.evict() {
				for _, d := range dirs {
					_ = unix.Rename(d, strings.TrimSuffix(d, p)+s.cg.path)
				}
				return nil, fmt.Errorf("%w: %w", ErrInTheWay, &fs.PathError{Op: "rename", Path: dir, Err: err})
			}
			for _, d := range dirs {
				_ = unix.Rmdir(d)
			}
			_ = s.Discard()
			return nil, nil
		}
		dirs = append(dirs, dir)
	}
	s.cg.path = p
	return dirs, nil
}

// Tasks returns the open file of one of ProcsFiles of the cgroup the spare has
// become, or nil. It is closed by Close.
func (s *Spare) Tasks(file string) *os.File {
	if s == nil || len(s.tasks) == 0 {
		return nil
	}
	for i, h := range s.cg.used() {
		if file == filepath.Join(h.mount, s.cg.path, "tasks") {
			return s.tasks[i]
		}
	}
	return nil
}

// TasksFiles returns the open files that who joins the spare writes to. They are
// closed by Close.
func (s *Spare) TasksFiles() []*os.File { return s.tasks }

// Close closes the tasks files. What the spare has become stays.
func (s *Spare) Close() {
	if s == nil {
		return
	}
	for _, f := range s.tasks {
		_ = f.Close()
	}
	s.tasks = nil
}

// Discard removes a spare that is not needed any more.
func (s *Spare) Discard() error {
	if s == nil {
		return nil
	}
	if !s.evict() {
		return errs.Conflict("cannot remove cgroup %s: a container is being started in it", s.cg.path)
	}
	s.Close()
	return s.cg.Delete()
}

// SweepSpares removes the spares below parent whose names begin with prefix: an
// owner that was killed left them.
func SweepSpares(parent, prefix string) error {
	var failed []error
	for _, dir := range New(parent).dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
		for _, e := range entries {
			if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
				continue
			}
			if err := sweep(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, unix.ENOENT) {
				failed = append(failed, fmt.Errorf("cannot remove the spare cgroup %s: %w", filepath.Join(dir, e.Name()), err))
			}
		}
	}
	return errors.Join(failed...)
}

// sweep removes a directory. Who waits in a spare ends with its owner, a moment
// after it.
func sweep(dir string) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}
