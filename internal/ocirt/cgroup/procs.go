package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Pids lists the processes of the cgroup and of those below it, sorted.
func (c *Cgroup) Pids() ([]int, error) {
	dir := c.memberDir()
	if dir == "" {
		return nil, c.err
	}
	pids, err := pidsBelow(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes of cgroup %s: %w", c.path, err)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// memberDir is the directory membership is read from. All hierarchies hold the
// same processes; one a container cannot write to by itself comes first.
func (c *Cgroup) memberDir() string {
	for _, ctl := range []string{"freezer", "pids", "devices", "memory", "cpu"} {
		if d, _ := c.dir(ctl); d != "" {
			return d
		}
	}
	if ds := c.dirs(); len(ds) > 0 {
		return ds[0]
	}
	return ""
}

// pidsBelow reads cgroup.procs of a directory and all below it. What vanishes
// meanwhile has no processes.
func pidsBelow(dir string) ([]int, error) {
	s, err := readFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if errors.Is(err, unix.EOPNOTSUPP) { // a threaded cgroup: its domain lists them
		s, err = "", nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(s) {
		// 0 is a process outside our PID namespace.
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return pids, nil //nolint:nilerr // gone meanwhile
	}
	for _, e := range entries {
		if e.IsDir() {
			sub, err := pidsBelow(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			pids = append(pids, sub...)
		}
	}
	return pids, nil
}

// Kill sends a signal to every process of the cgroup and of those below it. With
// SIGKILL it also reaches processes that are forked meanwhile or frozen, but it
// does not wait until they have ended.
func (c *Cgroup) Kill(sig syscall.Signal) error {
	if c.err != nil {
		return c.err
	}
	if sig == unix.SIGKILL {
		if h := c.lay.unified(); h != nil && (c.lay.mode == Unified || c.needUnified) {
			err := writeFile(filepath.Join(h.mount, c.path, "cgroup.kill"), "1")
			if err == nil || errors.Is(err, unix.ENODEV) {
				return c.thawIfFrozen()
			}
		}
	}
	// Signal what is there until nothing new appears; SIGKILL leaves nobody to
	// fork, another signal is sent once to each.
	done := map[int]bool{}
	for range 100 {
		pids, err := c.Pids()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if done[pid] {
				continue
			}
			done[pid], fresh = true, true
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("cannot send %s to process %d: %w", unix.SignalName(sig), pid, err)
			}
		}
		if !fresh || sig != unix.SIGKILL {
			break
		}
	}
	if sig == unix.SIGKILL {
		return c.thawIfFrozen()
	}
	return nil
}

// thawIfFrozen lets a killed process die: v1's freezer holds even those.
func (c *Cgroup) thawIfFrozen() error {
	dir, v2 := c.dir("freezer")
	if dir == "" || v2 {
		return nil
	}
	s, err := readFile(filepath.Join(dir, "freezer.state"))
	if err != nil || strings.TrimSpace(s) == "THAWED" {
		return nil //nolint:nilerr // the cgroup is gone, and so are the processes
	}
	return c.Thaw()
}

// freezeFor bounds how long Freeze waits. A process in uninterruptible sleep
// cannot be frozen before it wakes.
const freezeFor = 10 * time.Second

// Freeze stops every process of the cgroup and returns when all are stopped. If
// one cannot be within ten seconds, all run again and the error is
// ErrUnavailable.
func (c *Cgroup) Freeze() error {
	dir, v2 := c.freezerDir()
	if dir == "" {
		return errs.NotImplemented("cannot freeze cgroup %s: this machine has no freezer controller", c.path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), freezeFor)
	defer cancel()
	var err error
	if v2 {
		err = freezeV2(ctx, dir)
	} else {
		err = freezeV1(ctx, dir)
	}
	if err == nil {
		return nil
	}
	_ = c.Thaw()
	if errors.Is(err, context.DeadlineExceeded) {
		return errs.Unavailable("cannot freeze cgroup %s: a process did not stop within %s", c.path, freezeFor)
	}
	return fmt.Errorf("cannot freeze cgroup %s: %w", c.path, err)
}

// Thaw lets the processes run on. It is no error when they do.
func (c *Cgroup) Thaw() error {
	dir, v2 := c.freezerDir()
	if dir == "" {
		return errs.NotImplemented("cannot thaw cgroup %s: this machine has no freezer controller", c.path)
	}
	file, v := "freezer.state", "THAWED"
	if v2 {
		file, v = "cgroup.freeze", "0"
	}
	if err := writeFile(filepath.Join(dir, file), v); err != nil {
		return fmt.Errorf("cannot thaw cgroup %s: %w", c.path, err)
	}
	return nil
}

// Frozen says whether Freeze is in force on the cgroup itself.
func (c *Cgroup) Frozen() (bool, error) {
	dir, v2 := c.freezerDir()
	if dir == "" {
		return false, nil
	}
	if v2 {
		s, err := readFile(filepath.Join(dir, "cgroup.freeze"))
		return strings.TrimSpace(s) == "1", err
	}
	s, err := readFile(filepath.Join(dir, "freezer.state"))
	return err == nil && strings.TrimSpace(s) != "THAWED", err
}

func (c *Cgroup) freezerDir() (string, bool) { return c.dir("freezer") }

// freezeV1 asks again and again: a cgroup in which processes fork can stay
// FREEZING for ever unless it is told again, and now and then let go.
func freezeV1(ctx context.Context, dir string) error {
	file := filepath.Join(dir, "freezer.state")
	for i := 0; ; i++ {
		if i%50 == 49 {
			_ = writeFile(file, "THAWED")
		}
		if err := writeFile(file, "FROZEN"); err != nil {
			return err
		}
		s, err := readFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(s) == "FROZEN" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond * time.Duration(min(i/10, 10))):
		}
	}
}

// freezeV2 waits for the kernel to say so in cgroup.events.
func freezeV2(ctx context.Context, dir string) error {
	if err := writeFile(filepath.Join(dir, "cgroup.freeze"), "1"); err != nil {
		return err
	}
	events := filepath.Join(dir, "cgroup.events")
	frozen := func() (bool, error) {
		m, err := readFlat(events)
		return m["frozen"] == 1, err
	}
	if ok, err := frozen(); ok || err != nil {
		return err
	}
	w, err := watchFile(events)
	if err != nil {
		return err
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	for {
		if ok, err := frozen(); ok || err != nil {
			return err
		}
		if err := drain(w); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}
