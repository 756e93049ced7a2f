package shim

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// wait sees a process to its end: it learns the exit code, drains the output,
// records the exit, tells of it, and removes the cgroup.
func (t *task) wait() {
	t.awaitDeath()
	t.reapOnce()
	t.endGroup()
	drained := t.drainPumps()
	closed := make(chan struct{})
	t.h.guarded(func() {
		complete := false
		select {
		case <-drained:
			complete = true
			t.closeLog()
			close(closed)
		default:
			go func() { // a client holds up the rest; the log gets it when it comes
				<-drained
				t.closeLog()
				close(closed)
			}()
		}
		t.recordExit() // nobody can attach from now on
		t.h.publishExit(t, complete && t.leaveOpen())
	})
	<-closed
	t.h.guarded(t.cleanUp)
}

// guarded runs f while no upgrade can happen.
func (h *Holder) guarded(f func()) {
	h.gate.enter()
	defer h.gate.leave()
	f()
}

// reapOnce collects the exit code. An upgrade may follow at once, so that it is
// noted in the same breath.
func (t *task) reapOnce() {
	t.h.gate.enter()
	defer t.h.gate.leave()
	if t.rec.Reaped {
		return
	}
	code, known := t.reap()
	t.h.orphans.forget(t.rec.Pid)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rec.Reaped, t.rec.ExitCode, t.rec.ExitUnknown, t.rec.ExitedAt = true, code, !known, now()
}

// endGroup ends what is left of a container whose first process has died.
func (t *task) endGroup() {
	cg := t.cgroup()
	if t.exec != "" || cg == nil {
		return
	}
	if t.rec.SharedPIDs {
		cg.Kill(unix.SIGKILL)
	}
	if n, err := cg.OOMKills(); err == nil && n > 0 {
		t.noteOOM()
	}
}

// recordExit persists the exit, before anybody is told of it.
func (t *task) recordExit() {
	t.mu.Lock()
	t.rec.Running = false
	t.mu.Unlock()
	if err := t.save(); err != nil {
		t.h.log.Error("cannot record an exit", "process", t.key.String(), "error", err)
	}
}

// cleanUp leaves nothing of an ended process but its record.
func (t *task) cleanUp() {
	t.detachAll()
	t.release()
	t.deleteExternal()
	if cg := t.cgroup(); t.exec == "" && cg != nil {
		if err := cg.Delete(); err != nil {
			t.h.log.Error("cannot remove a cgroup", "process", t.key.String(), "error", err)
		}
	}
	t.mnt.Close()
	t.h.left(t)
}

// left notes that nothing is left of a process, in one step with what forget looks
// at: a process that was gone already is not leaving any more.
func (h *Holder) left(t *task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaving[t.key] == t {
		delete(h.leaving, t.key)
		if t.exec == "" {
			h.removeDir(t.id)
		}
	}
	close(t.gone)
}

// awaitDeath blocks until the process is dead. A pidfd polls readable then.
func (t *task) awaitDeath() {
	rc, err := t.pidfd.SyscallConn()
	if err != nil {
		return
	}
	rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err != unix.EINTR && n != 0
	})
}

// unknownCode is reported, marked as unknown, where the kernel does not tell.
const unknownCode = 255

// reap collects the exit code, as parent or, after io was killed and another
// has taken over, from the pidfd.
func (t *task) reap() (code int, known bool) {
	var ws unix.WaitStatus
	pid, err := unix.Wait4(t.rec.Pid, &ws, unix.WNOHANG, nil)
	for err == unix.EINTR {
		pid, err = unix.Wait4(t.rec.Pid, &ws, unix.WNOHANG, nil)
	}
	if err == nil && pid == t.rec.Pid {
		return exitCode(ws), true
	}
	// It is another's child now. The kernel tells of it as long as that one has
	// not collected it, and, if it is new enough, afterwards.
	var told error
	for range 20 {
		if ws, ok := zombieExit(t.rec.Pid, t.rec.StartTime); ok {
			return exitCode(ws), true
		}
		if ws, told = pidfdExit(t.pidfd); told == nil {
			return exitCode(ws), true
		}
		if !errors.Is(told, unix.EAGAIN) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.h.log.Warn("an exit code is unknown", "process", t.key.String(), "pid", t.rec.Pid, "wait", err, "pidfd", told)
	return unknownCode, false
}

func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func (t *task) noteOOM() {
	t.mu.Lock()
	told := t.rec.OOMKilled
	t.rec.OOMKilled = true
	t.mu.Unlock()
	if !told {
		t.h.publish(Event{Type: EventOOM, Status: t.status()})
	}
}

func (t *task) closeLog() {
	if t.log == nil {
		return
	}
	if err := t.log.Close(); err != nil {
		t.h.log.Error("cannot close a log", "process", t.key.String(), "error", err)
	}
}

// release gives up the descriptors of an ended process, here and in net.
func (t *task) release() {
	t.unhold()
	t.pidfd.Close()
	if t.in != nil {
		t.in.Close()
	}
	for _, f := range t.out {
		if f != nil {
			f.Close()
		}
	}
}
