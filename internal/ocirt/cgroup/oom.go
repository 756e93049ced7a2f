package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// OOMKills says how many processes of the cgroup the OOM killer has killed
// since it was created; on v2 those of cgroups below it count too. It costs one
// read of a small file: ask it when a process has died of SIGKILL.
func (c *Cgroup) OOMKills() (uint64, error) {
	dir, v2 := c.dir("memory")
	if dir == "" {
		return 0, nil
	}
	return oomKills(dir, v2)
}

func oomKills(dir string, v2 bool) (uint64, error) {
	file := "memory.oom_control"
	if v2 {
		file = "memory.events"
	}
	m, err := readFlat(filepath.Join(dir, file))
	return m["oom_kill"], err
}

// OOMWatcher tells when the OOM killer strikes in a cgroup.
type OOMWatcher struct {
	dir   string
	v2    bool
	fd    *os.File // eventfd on v1, inotify on v2
	last  uint64   // kills that were told
	heard bool     // an event has come
	once  sync.Once
}

// OOM starts to watch the cgroup. The caller closes the watcher. The error is
// ErrNotImplemented on a machine without a memory controller.
func (c *Cgroup) OOM() (*OOMWatcher, error) {
	dir, v2 := c.dir("memory")
	if dir == "" {
		return nil, errs.NotImplemented("cannot watch cgroup %s for OOM kills: this machine has no memory controller", c.path)
	}
	watch := oomEventfd
	if v2 {
		watch = func(dir string) (*os.File, error) {
			return watchFile(filepath.Join(dir, "memory.events"), filepath.Join(dir, "cgroup.events"))
		}
	}
	fd, err := watch(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot watch cgroup %s for OOM kills: %w", c.path, err)
	}
	w := &OOMWatcher{dir: dir, v2: v2, fd: fd}
	// Counted after the watch began, so that none falls between the two; those
	// from before are the caller's to ask for with OOMKills.
	w.last, _ = oomKills(dir, v2)
	return w, nil
}

// Wait blocks until processes were killed since the watch began or the last Wait
// and says how many. The error is io.EOF when the cgroup is gone (on v2 also when
// its last process has ended: v2 does not tell of the removal), and os.ErrClosed
// after Close. One goroutine at a time may wait; it costs no thread.
func (w *OOMWatcher) Wait() (kills uint64, err error) {
	// v1 notifies before it kills, and then no more: after an event the count is
	// looked at for a while even if no other event comes.
	const first, longest = time.Millisecond, time.Second
	again := longest
	for {
		if kills, err := w.look(); kills > 0 || err != nil {
			return kills, err
		}
		var deadline time.Time
		if again < longest {
			deadline = time.Now().Add(again)
		}
		if w.fd.SetReadDeadline(deadline) != nil {
			return 0, os.ErrClosed
		}
		switch err := drain(w.fd); {
		case err == nil:
			again, w.heard = first, true
		case errors.Is(err, os.ErrDeadlineExceeded):
			again *= 2
		default:
			return 0, err
		}
	}
}

// look compares the count with the last one. Before the first event there is
// nothing to see, and a cgroup nobody has entered yet is not at its end.
func (w *OOMWatcher) look() (kills uint64, err error) {
	if !w.heard {
		return 0, nil
	}
	n, err := oomKills(w.dir, w.v2)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return 0, io.EOF
	case err != nil:
		return 0, err
	case n > w.last:
		kills, w.last = n-w.last, n
		return kills, nil
	}
	if w.v2 {
		if m, err := readFlat(filepath.Join(w.dir, "cgroup.events")); err != nil || m["populated"] == 0 {
			return 0, io.EOF
		}
	}
	return 0, nil
}

// Close ends the watch and wakes who waits.
func (w *OOMWatcher) Close() (err error) {
	w.once.Do(func() { err = w.fd.Close() })
	return err
}

// drain waits until a notification descriptor has something and reads it.
func drain(f *os.File) error {
	var buf [4096]byte
	_, err := f.Read(buf[:])
	return err
}

// oomEventfd registers for notifications as Documentation/admin-guide/
// cgroup-v1/memory.rst, section 9, has it. It also fires when the cgroup is
// removed.
func oomEventfd(dir string) (*os.File, error) {
	control, err := unix.Open(filepath.Join(dir, "memory.oom_control"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(control)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, "cgroup.event_control"), fmt.Sprintf("%d %d", fd, control)); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "oom eventfd"), nil
}

// watchFile returns an inotify descriptor that becomes readable when the kernel
// changes one of some v2 events files.
func watchFile(paths ...string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), "inotify "+paths[0]), nil
}
