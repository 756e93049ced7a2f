package ocirt

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/thread"
)

// A container that shares the pid namespace of another one is seen by that one's
// processes, of which one may be allowed to trace others. So it enters when it
// has only the privileges it will keep, as an exec does (appear). Until then it
// cannot mount a procfs of that namespace, which shows the one that its mounter
// is in: it gets copies of one that somebody in there has.

// entersLate says whether the process can enter the pid namespace it joins that
// late, and finds the procfs it needs. Those who have none in there, or whose
// options the container wants to choose, enter early: who is able to take /proc
// away from his container (CAP_SYS_ADMIN) needs to trace nobody.
func (b *builder) entersLate() bool {
	if b.ns.joined&unix.CLONE_NEWPID == 0 || b.ns.has(unix.CLONE_NEWUSER) || !b.ns.has(unix.CLONE_NEWNS) {
		return false
	}
	for _, m := range b.spec.Mounts {
		if m.Type != "proc" {
			continue
		}
		if o := parseOptions(m.Options); len(o.data) > 0 {
			b.closeProcs()
			return false
		}
		f, err := procOf(b.ns.pid)
		if err != nil {
			b.closeProcs()
			return false
		}
		b.procs = append(b.procs, f)
	}
	return true
}

func (b *builder) closeProcs() {
	for _, f := range b.procs {
		f.Close()
	}
	b.procs = nil
}

// takeProc is the source of the next mount of type proc.
func (b *builder) takeProc() *os.File {
	f := b.procs[0]
	b.procs = b.procs[1:]
	return f
}

// procOf returns a detached copy of a procfs of a pid namespace, taken from a
// process that lives in there.
func procOf(ns *os.File) (*os.File, error) {
	var want unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &want); err != nil {
		return nil, err
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, pid := range names {
		var st unix.Stat_t
		if pid[0] < '0' || pid[0] > '9' || unix.Stat("/proc/"+pid+"/ns/pid", &st) != nil || !sameInode(&st, &want) {
			continue
		}
		if f, err := procSeenBy(pid, &want); err == nil {
			return f, nil
		}
	}
	return nil, errors.New("nobody in the pid namespace has its procfs")
}

func sameInode(a, b *unix.Stat_t) bool { return a.Ino == b.Ino && a.Dev == b.Dev }

// procSeenBy copies what is mounted on /proc in the mount namespace of a process,
// if it is the procfs of that pid namespace.
func procSeenBy(pid string, want *unix.Stat_t) (*os.File, error) {
	mnt, err := os.Open("/proc/" + pid + "/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer mnt.Close()
	var copied *os.File
	err = thread.Spend(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		// Its root is that of the mount namespace, wherever the process has
		// moved its own.
		if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		fd, err := unix.Openat2(unix.AT_FDCWD, "/proc", &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
		})
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if fd, err = unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH); err == nil {
			copied = os.NewFile(uintptr(fd), "/proc")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	// Process 1 of a procfs is the first one of the namespace it shows.
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(int(copied.Fd()), &fs) != nil || fs.Type != unix.PROC_SUPER_MAGIC ||
		unix.Fstatat(int(copied.Fd()), "1/ns/pid", &st, 0) != nil || !sameInode(&st, want) {
		copied.Close()
		return nil, fmt.Errorf("process %s sees another procfs", pid)
	}
	return copied, nil
}
