package shim

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// record is what is kept of a process on the tmpfs.
type record struct {
	Status
	Terminal   bool         `json:",omitempty"`
	StdinOnce  bool         `json:",omitempty"`
	Cgroup     string       `json:",omitempty"`
	SharedPIDs bool         `json:",omitempty"` // no PID namespace of its own: it does not die with its first process
	WatchOOM   bool         `json:",omitempty"` // it has a memory limit
	Reaped     bool         `json:",omitempty"` // the exit code is known, and nobody was told yet
	Log        *logs.Config `json:",omitempty"` // of a container
	Seccomp    string       `json:",omitempty"` // digest of the profile beside its specification
	Runtime    *Runtime     `json:",omitempty"` // of a container that has an external one
	// Pipes are the inodes of standard output and error, by which a new io
	// recognises them in /proc/PID/fd.
	Pipes [3]uint64 `json:",omitzero"`
}

// task is one process the shim holds.
type task struct {
	key
	h *Holder

	mu      sync.Mutex // guards everything down to the blank line
	rec     record
	clients []*client

	pidfd  *os.File
	mnt    *os.File    // the mount namespace, or nil; see linger
	out    [3]*os.File // by stream: what io reads. A terminal is out[Stdout] and in
	in     *os.File    // what io writes; nil without input
	log    logs.Writer // nil for an exec
	inMu   sync.Mutex  // held while writing to in, so that input is not mixed
	pumps  sync.WaitGroup
	ended  chan struct{} // closed when the exit is recorded
	gone   chan struct{} // closed when nothing of the process is left, its cgroup included
	inOnce sync.Once
	first  []*client // come with the process; not touched once it runs

	holdMu   sync.Mutex // guards released, and keeps what net is told in order
	released bool       // net must not be given the descriptors any more
}

func newTask(h *Holder, k key) *task {
	return &task{key: k, h: h, ended: make(chan struct{}), gone: make(chan struct{})}
}

func (t *task) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.rec.Status
	s.ID, s.ExecID = t.id, t.exec
	return s
}

// over reports whether nothing of the process is left but its record.
func (t *task) over() bool {
	select {
	case <-t.gone:
		return true
	default:
		return false
	}
}

func (t *task) recordPath() string {
	if t.exec == "" {
		return filepath.Join(t.h.dir(t.id), "state.json")
	}
	return filepath.Join(t.h.dir(t.id), "exec-"+t.exec+".json")
}

func (t *task) specPath() string { return filepath.Join(t.h.dir(t.id), "config.json") }

// save records the process: by rename, so that a reader finds the old or the new.
func (t *task) save() error {
	t.mu.Lock()
	raw, err := json.Marshal(&t.rec)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	path := t.recordPath()
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return errs.System("cannot record %s: %w", t.key, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return errs.System("cannot record %s: %w", t.key, err)
	}
	return nil
}

// removeDir removes the state of a container. What most have is taken by name: a
// directory that is empty then needs not be read.
func (h *Holder) removeDir(id string) error {
	dir := h.dir(id)
	for _, name := range []string{"state.json", "seccomp.json", "config.json"} {
		_ = unix.Unlink(filepath.Join(dir, name))
	}
	if unix.Rmdir(dir) == nil {
		return nil
	}
	return os.RemoveAll(dir)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// cgroup returns the cgroup of the container, or nil.
func (t *task) cgroup() *cgroup.Cgroup {
	if t.rec.Cgroup == "" {
		return nil
	}
	return cgroup.New(t.rec.Cgroup)
}

// signal sends sig to the process, or to all of the container.
func (t *task) signal(sig syscall.Signal, all bool) error {
	if cg := t.cgroup(); all && cg != nil {
		return cg.Kill(sig)
	}
	err := control(t.pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	if errors.Is(err, unix.ESRCH) {
		return errs.Conflict("%s is not running", t.key)
	}
	if err != nil {
		return errs.System("cannot send signal %d to %s: %w", sig, t.key, err)
	}
	return nil
}

// resize sets the size of the terminal.
func (t *task) resize(height, width uint) error {
	if !t.rec.Terminal || t.in == nil {
		return errs.Conflict("%s has no terminal", t.key)
	}
	return setSize(t.in, height, width)
}

func setSize(tty *os.File, height, width uint) error {
	size := unix.Winsize{Row: uint16(min(height, 0xffff)), Col: uint16(min(width, 0xffff))}
	err := control(tty, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &size) })
	if err != nil {
		return errs.System("cannot resize the terminal: %w", err)
	}
	return nil
}

// closeStdin ends the input of the process; the net role's copy has to go too.
func (t *task) closeStdin() {
	if t.in == nil || t.rec.Terminal {
		return
	}
	t.inOnce.Do(func() {
		t.holdMu.Lock()
		defer t.holdMu.Unlock()
		t.in.Close()
		t.h.store.drop(t.storeKey(holdStdin))
	})
}

// control runs f on the descriptor of a file without changing its mode, as
// File.Fd would.
func control(file *os.File, f func(fd int) error) error {
	if file == nil {
		return os.ErrClosed
	}
	rc, err := file.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(cerr, err)
}

func now() time.Time { return time.Now().UTC() }
