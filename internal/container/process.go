package container

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// process opens the directory in /proc of the container's first process: what
// is found through it is that process's, or an error once it has ended, also when
// its number belongs to another by then. The error is of class ErrConflict when
// the container has ended.
func (rec *Record) process() (*os.File, error) {
	dir, err := os.OpenFile("/proc/"+strconv.Itoa(rec.State.Pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, rec.ended()
	}
	// Asked after it was opened. A record of an engine that did not note when
	// processes began says 0.
	if begun, err := startTime(dir); err != nil || rec.State.StartTime != 0 && begun != rec.State.StartTime {
		dir.Close()
		return nil, rec.ended()
	}
	return dir, nil
}

func (rec *Record) ended() error {
	return errs.Conflict("container %s is not running: its process %d has ended", rec.Name, rec.State.Pid)
}

// startTime is field 22 of proc_pid_stat(5), in clock ticks after boot. The name
// in field 2 may hold anything.
func startTime(proc *os.File) (uint64, error) {
	fd, err := unix.Openat(int(proc.Fd()), "stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	f := os.NewFile(uintptr(fd), "stat")
	defer f.Close()
	var buf [1024]byte
	n, err := f.Read(buf[:])
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(buf[bytes.LastIndexByte(buf[:n], ')')+1 : n])
	if len(fields) < 22-2 {
		return 0, fmt.Errorf("unexpected %s", filepath.Join(proc.Name(), "stat"))
	}
	return strconv.ParseUint(string(fields[22-3]), 10, 64)
}

// under opens a file of a process by its directory in /proc.
func under(proc *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(proc.Fd()), name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(proc.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(proc.Name(), name)), nil
}
