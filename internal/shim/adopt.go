package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// adopt takes over what an io that was killed has left: the records it made, and
// the descriptors that net kept, by key and name.
func (h *Holder) adopt(kept map[string]map[string]*os.File) {
	dirs, _ := filepath.Glob(filepath.Join(h.execRoot, "containers", "*"))
	for _, dir := range dirs {
		records, _ := filepath.Glob(filepath.Join(dir, "exec-*.json"))
		state := filepath.Join(dir, "state.json")
		if _, err := os.Stat(state); err != nil {
			h.killHalfStarted(dir)
			continue
		}
		for _, path := range append(records, state) {
			t, err := h.readRecord(path)
			if err != nil {
				h.log.Error("cannot adopt a process", "record", path, "error", err)
				continue
			}
			id := t.storeKey("").Key
			t.takeOver(kept[id])
			delete(kept, id)
		}
	}
	h.sweepBundles()
	h.spares.sweep()
	for id, files := range kept {
		h.store.drop(held{Key: id})
		for _, f := range files {
			f.Close()
		}
	}
}

func (h *Holder) readRecord(path string) (*task, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return nil, err
	}
	t := newTask(h, key{rec.ID, rec.ExecID})
	t.rec = rec
	h.mu.Lock()
	h.tasks[t.key] = t
	h.mu.Unlock()
	return t, nil
}

// takeOver makes t what it was, with the descriptors that were kept or that can
// be opened anew.
func (t *task) takeOver(files map[string]*os.File) {
	if !t.rec.Running {
		for _, f := range files {
			f.Close()
		}
		t.h.store.drop(t.storeKey(""))
		if cg := t.cgroup(); t.exec == "" && cg != nil {
			cg.Delete()
		}
		close(t.ended)
		close(t.gone)
		return
	}
	t.pidfd = files[holdPidfd]
	if t.pidfd == nil {
		t.pidfd = t.openPidfd()
	}
	t.out[logs.Stdout], t.out[logs.Stderr] = files[holdStdout], files[holdStderr]
	t.in = files[holdStdin]
	if t.rec.Terminal {
		t.in = t.out[logs.Stdout]
	} else {
		t.reopen(logs.Stdout)
		t.reopen(logs.Stderr)
	}
	if t.rec.Log != nil {
		w, err := logs.NewWriter(*t.rec.Log)
		if err != nil {
			t.h.log.Error("cannot continue a log", "process", t.key.String(), "error", err)
		} else {
			t.log = w
		}
	}
	t.h.log.Info("adopted", "process", t.key.String(), "pid", t.rec.Pid)
	t.hold()
	t.run()
}

// openPidfd opens the process by its number, if it is still the one.
func (t *task) openPidfd() *os.File {
	fd, err := unix.PidfdOpen(t.rec.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	if start, err := startTime(t.rec.Pid); err != nil || start != t.rec.StartTime {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), "pidfd")
}

// reopen opens an output pipe through the process that writes to it. A process
// that has put something else in its place is left with it.
func (t *task) reopen(s logs.Stream) {
	if t.out[s] != nil || t.rec.Pipes[s] == 0 {
		return
	}
	// Looked at before it is opened: a device does things when it is opened.
	there, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", t.rec.Pid, s), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(there)
	var st unix.Stat_t
	if unix.Fstat(there, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || st.Ino != t.rec.Pipes[s] {
		return
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", there), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	t.out[s] = os.NewFile(uintptr(fd), s.String())
}

// killHalfStarted ends a container that was being started when io was killed:
// the daemon was told of a failure.
func (h *Holder) killHalfStarted(dir string) {
	var spec specs.Spec
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err == nil && json.Unmarshal(raw, &spec) == nil && spec.Linux != nil && spec.Linux.CgroupsPath != "" {
		if cg, err := cgroup.Load(spec.Linux.CgroupsPath); err == nil {
			h.log.Warn("a container that was half started is killed", "id", filepath.Base(dir))
			cg.Kill(unix.SIGKILL)
			cg.Delete()
		}
	}
	os.RemoveAll(dir)
}
