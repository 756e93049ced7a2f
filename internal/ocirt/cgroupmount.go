package ocirt

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// joinCgroup adds the steps by which the child enters its cgroup. In v1 it
// writes itself to the tasks file of each hierarchy, which spares the kernel
// the wait for everybody else that moving another process costs. The directory
// returned, in v2, is for CLONE_INTO_CGROUP; "" when there is none.
func (b *builder) joinCgroup(c *cgroup.Cgroup) (v2dir string, err error) {
	if c == nil || b.inSpare {
		return "", nil
	}
	for _, file := range c.ProcsFiles() {
		if filepath.Base(file) == "cgroup.procs" && v2dir == "" && cgroup.Detect() != cgroup.Legacy {
			v2dir = filepath.Dir(file)
			continue
		}
		b.Doing("join", "cgroup "+filepath.Dir(file))
		if f := b.spare.cgroup().Tasks(file); f != nil {
			fd, err := b.pass(f)
			if err != nil {
				return "", err
			}
			b.Sys(unix.SYS_WRITE, fd, b.Str("0"), spawn.Int(1))
			b.Sys(unix.SYS_CLOSE, fd).Ignore()
			continue
		}
		b.Sys(unix.SYS_OPENAT, spawn.Int(unix.AT_FDCWD), b.Str(file), spawn.Int(unix.O_WRONLY|unix.O_CLOEXEC)).Save(b.temp)
		b.Sys(unix.SYS_WRITE, spawn.Val(b.temp), b.Str("0"), spawn.Int(1))
		b.shut(b.temp)
	}
	return v2dir, nil
}

// mountCgroup shows the container its cgroups. With v2 that is the file system
// of that name; with v1 a tmpfs with one directory per hierarchy, as hosts have
// it. These are copies of the container's own directory, which look exactly like
// new mounts from inside its cgroup namespace and cost no superblock.
func (b *builder) mountCgroup(p *mountPlan) error {
	if cgroup.Detect() == cgroup.Unified || p.Type == "cgroup2" {
		return b.mountUnified(p)
	}
	readonly := p.set&unix.MOUNT_ATTR_RDONLY != 0
	top := *p
	top.Type, top.Source = "tmpfs", "cgroup"
	top.set &^= unix.MOUNT_ATTR_RDONLY
	top.data, top.super = []string{"mode=755"}, nil
	b.newMount(&top)
	target := b.NewReg()
	b.Set(target, spawn.Val(b.temp))
	attach := func() {
		b.moveTo(top.src(), spawn.Val(target))
		b.shut(target)
	}
	// Linux mounted on attached mounts only, until 6.15; but in a tree that is
	// attached nowhere attributes change only as long as a mount is its root.
	early := b.ns.has(unix.CLONE_NEWNS)
	if early {
		attach()
	}
	if b.cgroup != nil {
		for _, file := range b.cgroup.ProcsFiles() {
			if err := b.mountHierarchy(&top, filepath.Dir(file), readonly); err != nil {
				return err
			}
		}
	}
	if readonly {
		b.setattr(top.src(), false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if p.propagation != 0 {
		b.setattr(top.src(), true, unix.MountAttr{Propagation: p.propagation})
	}
	if !early {
		attach()
	}
	return nil
}

// mountHierarchy shows one directory of the container's cgroup.
func (b *builder) mountHierarchy(top *mountPlan, dir string, readonly bool) error {
	name := filepath.Base(strings.TrimSuffix(dir, b.cgroup.Path()))
	b.Doing("mount", "cgroup "+name, "on", filepath.Join(top.Destination, name))
	b.Sys(unix.SYS_MKDIRAT, top.src(), b.Str(name), spawn.Int(0o755))
	mnt, err := b.cgroupTree(dir, name)
	if err != nil {
		return fmt.Errorf("cannot mount cgroup %s: %w", name, err)
	}
	attrs := top.set
	if readonly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	b.setattr(mnt, false, unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE})
	b.Sys(unix.SYS_MOVE_MOUNT, mnt, b.empty, top.src(), b.Str(name), spawn.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	b.Sys(unix.SYS_CLOSE, mnt).Ignore()
	if strings.Contains(name, ",") {
		for part := range strings.SplitSeq(name, ",") {
			b.Sys(unix.SYS_SYMLINKAT, b.Str(name), top.src(), b.Str(part)).Ignore(unix.EEXIST)
		}
	}
	return nil
}

// cgroupTree is the descriptor of a detached copy of a directory of the cgroup, in
// the hierarchy of that name.
func (b *builder) cgroupTree(dir, name string) (spawn.Arg, error) {
	if b.inSpare { // the directory has another name for now
		if f := b.spare.hierarchies[name]; f != nil {
			return b.pass(f)
		}
	}
	return b.hostTree(dir, false)
}

// mountUnified mounts cgroup v2. In a user namespace without a cgroup namespace
// of its own that is forbidden; then the host's is shown.
func (b *builder) mountUnified(p *mountPlan) error {
	fs := b.NewReg()
	p.source = b.NewReg()
	fallback, made := b.NewLabel(), b.NewLabel()
	b.target(p.Destination, true)
	b.Sys(unix.SYS_FSOPEN, b.Str("cgroup2"), spawn.Int(unix.FSOPEN_CLOEXEC)).Save(fs)
	if p.Source != "" {
		b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_SET_STRING), b.Str("source"), b.Str(p.Source), spawn.Int(0))
	}
	b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_CMD_CREATE), spawn.Int(0), spawn.Int(0), spawn.Int(0)).Else(fallback, unix.EPERM, unix.EBUSY)
	b.Sys(unix.SYS_FSMOUNT, spawn.Val(fs), spawn.Int(unix.FSMOUNT_CLOEXEC), spawn.Uint(p.set|p.recSet)).Save(p.source)
	b.Jump(made)
	b.Mark(fallback)
	dir := "/sys/fs/cgroup"
	if b.cgroup != nil {
		dir = filepath.Dir(b.cgroup.ProcsFiles()[len(b.cgroup.ProcsFiles())-1])
	}
	shown, err := b.hostTree(dir, false)
	if err != nil {
		return fmt.Errorf("cannot mount cgroups: %w", err)
	}
	b.Set(p.source, shown)
	b.setattr(spawn.Val(p.source), false, unix.MountAttr{Attr_set: p.set | p.recSet, Propagation: unix.MS_PRIVATE})
	b.Mark(made)
	b.shut(fs)
	if p.propagation != 0 {
		b.setattr(p.src(), p.propagateRecursive, unix.MountAttr{Propagation: p.propagation})
	}
	b.moveTo(spawn.Val(p.source), spawn.Val(b.temp))
	b.shut(b.temp)
	return nil
}
