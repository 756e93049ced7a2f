package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// The files of a container's directory.
const (
	recordFile = "state.json"
	specFile   = "config.json" // as it was at create: later changes of the bundle must not count
	fifoFile   = "exec.fifo"   // what a created container waits at
)

// statusPaused is a value the specification leaves to runtimes; runc and crun
// use the same word.
const statusPaused specs.ContainerState = "paused"

// record is what outlives the command that created a container.
type record struct {
	ID           string            `json:"id"`
	Version      string            `json:"ociVersion"`
	Pid          int               `json:"pid"` // 0 while it is being created
	StartTime    uint64            `json:"startTime"`
	Bundle       string            `json:"bundle"`
	Rootfs       string            `json:"rootfs"`
	Created      time.Time         `json:"created"`
	Cgroup       string            `json:"cgroup"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	NoPivot      bool              `json:"noPivot,omitempty"`
	NoNewKeyring bool              `json:"noNewKeyring,omitempty"`
}

// container is one container and its directory.
type container struct {
	record
	dir  string
	lock *os.File // nil unless the command changes the container
}

// checkID refuses what could not be a directory's name.
func checkID(id string) error {
	if id == "" {
		return errs.InvalidArgument("the container ID is missing")
	}
	if id == "." || id == ".." || len(id) > 1024 {
		return errs.InvalidArgument("invalid container ID %q", id)
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '+', c == '-', c == '.':
		default:
			return errs.InvalidArgument("invalid container ID %q: it may have letters, digits and _ + - .", id)
		}
	}
	return nil
}

// reserve makes the directory of a new container, locked. The ID is taken
// (ErrAlreadyExists) when there is one.
func (r *runtime) reserve(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.root, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make the state directory: %w", err)
	}
	c := &container{dir: filepath.Join(r.root, id)}
	if err := os.Mkdir(c.dir, 0o711); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, errs.Conflict("container with id exists: %s", id)
		}
		return nil, fmt.Errorf("cannot make the state directory of container %s: %w", id, err)
	}
	c.ID = id
	if err := c.acquire(); err != nil {
		_ = os.RemoveAll(c.dir)
		return nil, err
	}
	return c, nil
}

// load reads a container. The error is ErrNotFound when there is none.
func (r *runtime) load(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &container{dir: filepath.Join(r.root, id)}
	b, err := os.ReadFile(filepath.Join(c.dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.NotFound("container %q does not exist", id)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the state of container %s: %w", id, err)
	}
	if err := json.Unmarshal(b, &c.record); err != nil {
		return nil, fmt.Errorf("cannot read the state of container %s: %w", id, err)
	}
	return c, nil
}

// loadLocked is load for a command that changes the container.
func (r *runtime) loadLocked(id string) (*container, error) {
	c, err := r.load(id)
	if err != nil {
		return nil, err
	}
	if err := c.acquire(); err != nil {
		return nil, err
	}
	// What was read before may have changed while waiting.
	again, err := r.load(id)
	if err != nil {
		c.release()
		return nil, err
	}
	again.lock = c.lock
	return again, nil
}

// acquire waits for the container's lock: the one on its directory.
func (c *container) acquire() error {
	f, err := os.Open(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errs.NotFound("container %q does not exist", filepath.Base(c.dir))
	}
	if err != nil {
		return err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("cannot lock container %s: %w", filepath.Base(c.dir), err)
	}
	c.lock = f
	return nil
}

func (c *container) release() {
	if c.lock != nil {
		c.lock.Close()
		c.lock = nil
	}
}

// save writes the record so that a reader sees the old or the new one.
func (c *container) save() error {
	return c.write(recordFile, &c.record)
}

func (c *container) write(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := filepath.Join(c.dir, "."+name)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("cannot save container %s: %w", c.ID, err)
	}
	return os.Rename(tmp, filepath.Join(c.dir, name))
}

// spec reads the configuration the container was created with.
func (c *container) spec() (*specs.Spec, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, specFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration of container %s: %w", c.ID, err)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("cannot read the configuration of container %s: %w", c.ID, err)
	}
	return &s, nil
}

func (c *container) fifo() string { return filepath.Join(c.dir, fifoFile) }

// status derives the state from what is: the process, its cgroup and whether it
// still waits to be started.
func (c *container) status() specs.ContainerState {
	switch {
	case c.Pid == 0 && c.lock == nil && c.creating():
		return specs.StateCreating
	case c.Pid == 0 && c.lock != nil:
		return specs.StateCreating
	case !alive(c.Pid, c.StartTime):
		return specs.StateStopped
	}
	if _, err := os.Lstat(c.fifo()); err == nil {
		return specs.StateCreated
	}
	if frozen, err := cgroup.New(c.Cgroup).Frozen(); err == nil && frozen {
		return statusPaused
	}
	return specs.StateRunning
}

// creating says whether the command that creates the container still runs: it
// holds the lock.
func (c *container) creating() bool {
	f, err := os.Open(c.dir)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// state is what the state command prints and hooks are told.
func (c *container) state() *specs.State {
	s := &specs.State{
		Version:     c.Version,
		ID:          c.ID,
		Status:      c.status(),
		Pid:         c.Pid,
		Bundle:      c.Bundle,
		Annotations: c.Annotations,
	}
	if s.Status == specs.StateStopped {
		s.Pid = 0
	}
	return s
}

// list loads all containers below the root.
func (r *runtime) list() ([]*container, error) {
	entries, err := os.ReadDir(r.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the state directory: %w", err)
	}
	var all []*container
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		// One that is gone meanwhile, or not yet there, is no error.
		if c, err := r.load(e.Name()); err == nil {
			all = append(all, c)
		}
	}
	return all, nil
}
