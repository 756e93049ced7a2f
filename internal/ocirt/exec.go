package ocirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// Start starts a further process in a running container and returns when it has
// called execve. The caller is its parent. Errors are as those of Start for a
// container; ErrNotFound of errdefs says that the container is not running.
func (e *Exec) Start(ctx context.Context) (*Process, error) {
	if e.Spec == nil || e.Spec.Linux == nil {
		return nil, errs.InvalidArgument("the specification is not one of a Linux container")
	}
	if err := checkProcess(e.Process); err != nil {
		return nil, err
	}
	b := newBuilder(&spawn.Program{}, e.Spec, e.Process, e.ExtraFiles)
	defer b.close()
	b.id, b.cgroup, b.filter, b.execPath = e.ID, e.Cgroup, e.Filter, e.path
	target, err := e.target()
	if err != nil {
		return nil, err
	}
	defer target.Close()
	dir, err := b.compileExec(e, target)
	if err != nil {
		return nil, err
	}
	return b.run(ctx, 0, dir, nil)
}

// target opens the container's process and makes sure that it is still that.
func (e *Exec) target() (*os.File, error) {
	fd, err := unix.PidfdOpen(e.Pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, errs.NotFound("the container's process %d is not running", e.Pid)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open process %d: %w", e.Pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if e.StartTime != 0 {
		if t, err := startTime(e.Pid); err != nil || t != e.StartTime {
			f.Close()
			return nil, errs.NotFound("the container's process %d is not running", e.Pid)
		}
	}
	return f, nil
}

// compileExec adds the life of a process that joins a container.
func (b *builder) compileExec(e *Exec, target *os.File) (cgroupDir string, err error) {
	joined, err := b.joinedBy(e)
	if err != nil {
		return "", err
	}
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", e.Pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", errs.NotFound("the container's process %d is not running", e.Pid)
	}
	b.files = append(b.files, root)
	b.home = homeOf(root, b.process)

	if a := b.process.ExecCPUAffinity; a != nil {
		if err := b.setAffinity(a.Initial); err != nil {
			return "", err
		}
	}
	v2dir, err := b.joinCgroup(e.Cgroup)
	if err != nil {
		return "", err
	}
	cgroupDir = e.v2Cgroup(v2dir)
	if a := b.process.ExecCPUAffinity; a != nil {
		if err := b.setAffinity(a.Final); err != nil {
			return "", err
		}
	}
	if err := b.early(); err != nil {
		return "", err
	}
	if err := b.labels(); err != nil {
		return "", err
	}
	if err := b.passStreams(e.Stdin, e.Stdout, e.Stderr); err != nil {
		return "", err
	}
	if err := b.joinContainer(e, target, root, joined); err != nil {
		return "", err
	}
	b.joinKeyring(e.NoNewKeyring)
	if b.process.Terminal {
		b.openExecTerminal()
	}
	b.enterAsRoot()
	if err := b.finish(); err != nil {
		return "", err
	}
	b.execute()
	return cgroupDir, nil
}

// joinedBy says which namespaces of the container differ from this process's.
// Joining the user namespace one is in already is an error.
func (b *builder) joinedBy(e *Exec) (flags uint64, err error) {
	for _, t := range joinOrder() {
		var ours, theirs unix.Stat_t
		name := procName(string(t))
		if unix.Stat("/proc/self/ns/"+name, &ours) != nil {
			continue // unknown to this kernel
		}
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", e.Pid, name), &theirs); err != nil {
			return 0, errs.NotFound("the container's process %d is not running", e.Pid)
		}
		if ours.Ino != theirs.Ino || ours.Dev != theirs.Dev {
			flags |= namespaceFlag(t)
		}
	}
	b.ns.joined = flags
	return flags, nil
}

// procName is the name a type of namespace has in /proc/PID/ns.
func procName(t string) string {
	switch t {
	case "network":
		return "net"
	case "mount":
		return "mnt"
	}
	return t
}

func (b *builder) joinContainer(e *Exec, target, root *os.File, joined uint64) error {
	b.Doing("join", "the container's namespaces")
	fd, err := b.pass(target)
	if err != nil {
		return err
	}
	var rootFD spawn.Arg
	if e.NoPivot {
		if rootFD, err = b.pass(root); err != nil {
			return err
		}
	}
	if joined != 0 {
		// All at once: the kernel checks the permissions as if one were in the
		// user namespace, and moves to all or none.
		b.Sys(unix.SYS_SETNS, fd, spawn.Uint(joined))
	}
	b.Sys(unix.SYS_CLOSE, fd)
	if e.NoPivot {
		b.Sys(unix.SYS_FCHDIR, rootFD)
		b.Sys(unix.SYS_CHROOT, b.Str("."))
		b.Sys(unix.SYS_CLOSE, rootFD)
	}
	if b.hasHost {
		b.Sys(unix.SYS_CLOSE, b.host)
	}
	if joined&unix.CLONE_NEWUSER != 0 {
		b.Sys(unix.SYS_SETRESGID, spawn.Int(0), spawn.Int(0), spawn.Int(0)).Ignore(unix.EINVAL)
		b.Sys(unix.SYS_SETRESUID, spawn.Int(0), spawn.Int(0), spawn.Int(0)).Ignore(unix.EINVAL)
	}
	b.Sys(unix.SYS_CHDIR, b.Str("/"))
	b.appears = true
	return nil
}

// appear is the moment the process becomes visible to those in the container's
// pid namespace. It comes when the process has only the privileges it will keep:
// until then a process of the container that may trace others (CAP_SYS_PTRACE)
// could have taken over the host's privileges with it. Nor does it have anything
// left to read of what this program knows of other containers.
func (b *builder) appear() {
	if !b.appears {
		return
	}
	b.appears = false
	if b.ns.joined&unix.CLONE_NEWPID != 0 {
		b.Doing("enter", "the container's pid namespace")
		b.Forget()
		b.Fork()
	}
	b.Doing("create", "a session")
	b.Sys(unix.SYS_SETSID)
	b.takeTerminal()
}

// v2Cgroup is the directory to be born in. A cgroup of v2 that has handed
// controllers to its children may have no processes itself: then the one the
// container's first process has moved to is taken.
func (e *Exec) v2Cgroup(dir string) string {
	if dir == "" {
		return ""
	}
	control, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil || len(strings.TrimSpace(string(control))) == 0 {
		return dir
	}
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", e.Pid))
	if err != nil {
		return dir
	}
	for line := range strings.Lines(string(list)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			inner := filepath.Join(strings.TrimSuffix(dir, e.Cgroup.Path()), path)
			if strings.HasPrefix(inner, dir+"/") {
				return inner
			}
		}
	}
	return dir
}

// openExecTerminal opens a terminal of a running container. Its processes may
// have changed what /dev/pts/ptmx is; nothing but the multiplexer of a devpts
// answers TIOCGPTPEER, and the open neither blocks nor follows a link.
func (b *builder) openExecTerminal() {
	b.Doing("open", "a terminal")
	master := b.NewReg()
	b.slave = b.NewReg()
	flags := spawn.Int(unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK)
	opened := b.NewLabel()
	b.Sys(unix.SYS_OPENAT, spawn.Int(unix.AT_FDCWD), b.Str("/dev/pts/ptmx"), flags).Save(master).Then(opened).Ignore(unix.ENOENT, unix.ENOTDIR)
	b.Sys(unix.SYS_OPENAT, spawn.Int(unix.AT_FDCWD), b.Str("/dev/ptmx"), flags).Save(master)
	b.Mark(opened)
	// Character device 5:2, whatever its name.
	b.stat(spawn.Val(master))
	b.CheckByte(b.statxField(128), 5, unix.ENODEV)
	b.CheckByte(b.statxField(132), 2, unix.ENODEV)
	b.Sys(unix.SYS_FCNTL, spawn.Val(master), spawn.Int(unix.F_SETFL), spawn.Int(unix.O_RDWR))
	b.terminalPair(master)
}
