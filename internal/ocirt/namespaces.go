package ocirt

import (
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// namespaces is which namespaces a container gets new and which it joins.
type namespaces struct {
	fresh  uint64 // CLONE_NEW* of new ones
	joined uint64
	paths  map[uint64]string // of joined ones
	net    *os.File          // instead of a path
	user   *os.File          // the joined user namespace, opened
	pid    *os.File          // the joined pid namespace, opened
}

func (n *namespaces) has(flag uint64) bool { return (n.fresh|n.joined)&flag != 0 }

// namespaceFlag is the CLONE_NEW* flag of a type; 0 for one that is unknown.
func namespaceFlag(t specs.LinuxNamespaceType) uint64 {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME
	}
	return 0
}

// joinOrder is the order in which namespaces are joined: while the process has
// all privileges of the host, and the user namespace, which takes them away,
// last. The mount namespace comes late too: the paths of the host go with it.
func joinOrder() []specs.LinuxNamespaceType {
	return []specs.LinuxNamespaceType{
		specs.CgroupNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace,
		specs.PIDNamespace, specs.TimeNamespace, specs.MountNamespace, specs.UserNamespace,
	}
}

func parseNamespaces(list []specs.LinuxNamespace, net *os.File) (n namespaces, err error) {
	for _, ns := range list {
		flag := namespaceFlag(ns.Type)
		switch {
		case flag == 0:
			return n, errs.InvalidArgument("unknown namespace type %q", ns.Type)
		case n.has(flag):
			return n, errs.InvalidArgument("namespace %s is listed twice", ns.Type)
		case ns.Path == "":
			n.fresh |= flag
		default:
			n.joined |= flag
			if n.paths == nil {
				n.paths = make(map[uint64]string)
			}
			n.paths[flag] = ns.Path
		}
	}
	if net != nil {
		n.net = net
		n.fresh &^= unix.CLONE_NEWNET
		n.joined |= unix.CLONE_NEWNET
	}
	return n, nil
}

// cloneFlags are the namespaces clone3 itself makes. With a user namespace it
// makes none: the child first does what needs the privileges of the host.
func (n *namespaces) cloneFlags() uint64 {
	if n.has(unix.CLONE_NEWUSER) {
		return 0
	}
	// The root of a new cgroup namespace is the cgroup one is in, so that waits
	// until the child is in its own; offsets of a new time namespace have to be
	// written while nobody is in it.
	return n.fresh &^ (unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME)
}

// enterNamespaces adds the steps from the fork to being in all namespaces.
func (b *builder) enterNamespaces() error {
	for _, t := range joinOrder() {
		flag := namespaceFlag(t)
		if b.ns.joined&flag == 0 {
			continue
		}
		fd, err := b.openNamespace(t, flag)
		if err != nil {
			return err
		}
		b.Doing("join", string(t)+" namespace", b.ns.paths[flag])
		b.Sys(unix.SYS_SETNS, fd, spawn.Uint(flag))
	}
	late := b.ns.fresh &^ b.ns.cloneFlags() &^ (unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME)
	if b.ns.fresh&unix.CLONE_NEWUSER != 0 {
		b.Doing("create", "a user namespace")
		b.Sys(unix.SYS_UNSHARE, spawn.Int(unix.CLONE_NEWUSER))
		b.Barrier(eventUserMaps)
	}
	if b.ns.has(unix.CLONE_NEWUSER) {
		b.Doing("become", "root in the user namespace")
		b.Sys(unix.SYS_SETRESGID, spawn.Int(0), spawn.Int(0), spawn.Int(0)).Ignore(unix.EINVAL)
		b.Sys(unix.SYS_SETRESUID, spawn.Int(0), spawn.Int(0), spawn.Int(0)).Ignore(unix.EINVAL)
	}
	if late != 0 {
		b.Doing("create", "namespaces")
		b.Sys(unix.SYS_UNSHARE, spawn.Uint(late))
	}
	b.appears = b.entersLate()
	if late&unix.CLONE_NEWPID != 0 || b.ns.joined&unix.CLONE_NEWPID != 0 && !b.appears {
		b.Doing("enter", "the pid namespace")
		b.Fork()
	}
	b.Doing("create", "a session")
	b.Sys(unix.SYS_SETSID)
	if b.ns.fresh&unix.CLONE_NEWCGROUP != 0 {
		b.Doing("create", "a cgroup namespace")
		b.Sys(unix.SYS_UNSHARE, spawn.Int(unix.CLONE_NEWCGROUP))
	}
	return b.enterTime()
}

// enterTime makes a time namespace. Its offsets are written by the parent: the
// files of a process that is not dumpable belong to the host's root.
func (b *builder) enterTime() error {
	if b.ns.fresh&unix.CLONE_NEWTIME == 0 {
		if len(b.spec.Linux.TimeOffsets) > 0 {
			return errs.InvalidArgument("time offsets need a new time namespace")
		}
		return nil
	}
	b.Doing("create", "a time namespace")
	b.Sys(unix.SYS_UNSHARE, spawn.Int(unix.CLONE_NEWTIME))
	if len(b.spec.Linux.TimeOffsets) > 0 {
		b.Barrier(eventTimeOffsets)
	}
	fd := b.NewReg()
	proc, err := b.proc()
	if err != nil {
		return err
	}
	b.Sys(unix.SYS_OPENAT, proc, b.Str("thread-self/ns/time_for_children"), spawn.Int(unix.O_RDONLY|unix.O_CLOEXEC)).Save(fd)
	b.Sys(unix.SYS_SETNS, spawn.Val(fd), spawn.Int(unix.CLONE_NEWTIME))
	return nil
}

func (b *builder) openNamespace(t specs.LinuxNamespaceType, flag uint64) (spawn.Arg, error) {
	if flag == unix.CLONE_NEWNET && b.ns.net != nil {
		return b.pass(b.ns.net)
	}
	f, err := openNamespacePath(b.ns.paths[flag], t)
	if err != nil {
		return spawn.Arg{}, err
	}
	switch flag {
	case unix.CLONE_NEWUSER:
		b.ns.user = f
	case unix.CLONE_NEWPID:
		b.ns.pid = f
	}
	return b.own(f)
}

// openNamespacePath opens a namespace and checks that it is one of the type.
func openNamespacePath(path string, t specs.LinuxNamespaceType) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot join %s namespace: %w", t, err)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || uint64(uint32(kind)) != namespaceFlag(t) {
		f.Close()
		return nil, errs.InvalidArgument("cannot join %s namespace: %s is not one", t, path)
	}
	return f, nil
}

// writeTimeOffsets is the parent's part of enterTime.
func writeTimeOffsets(pid int, offsets map[string]specs.LinuxTimeOffset) error {
	var lines []byte
	for clock, o := range offsets {
		lines = fmt.Appendf(lines, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	if err := writeProc(pid, "timens_offsets", lines); err != nil {
		return fmt.Errorf("cannot set time offsets: %w", err)
	}
	return nil
}

// writeUserMaps is the parent's part of a new user namespace.
func writeUserMaps(pid int, uids, gids []specs.LinuxIDMapping) error {
	if err := writeProc(pid, "uid_map", formatMap(uids)); err != nil {
		return fmt.Errorf("cannot set user mappings: %w", err)
	}
	if err := writeProc(pid, "gid_map", formatMap(gids)); err != nil {
		return fmt.Errorf("cannot set group mappings: %w", err)
	}
	return nil
}

func formatMap(list []specs.LinuxIDMapping) (text []byte) {
	for _, m := range list {
		text = fmt.Appendf(text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return text
}

// writeProc writes a file of a process in one call, as these files want it.
func writeProc(pid int, name string, data []byte) error {
	f, err := openProc(strconv.Itoa(pid)+"/"+name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.Write(int(f.Fd()), data)
	return err
}
