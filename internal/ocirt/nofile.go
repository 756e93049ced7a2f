package ocirt

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFiles is the limit on open files this program was started with, or zero
// when it is still in force.
//
// The runtime knows the original and tells nobody, but gives it back to what it
// executes. So one child is executed, stopped by ptrace before its first
// instruction, asked for its limit, and killed. That happens once, and only
// where the runtime has left its mark: a soft limit one below the hard one.
var openFiles = sync.OnceValue(func() (lim unix.Rlimit) {
	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &now) != nil || now.Cur != now.Max-1 {
		return lim
	}
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0]}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return lim
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				return
			}
		}
	}()
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err == unix.EINTR {
			continue
		} else if err != nil || !status.Stopped() {
			return lim
		}
		break
	}
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &lim) != nil {
		return unix.Rlimit{}
	}
	return lim
})
