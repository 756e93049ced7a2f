package ocirt

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// openRoot makes the root filesystem, detached: nobody sees it yet.
func openRoot(c *Container) (*os.File, error) {
	if len(c.RootMounts) > 0 {
		f, err := mount.Detached(c.RootMounts)
		if err != nil {
			return nil, fmt.Errorf("cannot mount the root filesystem: %w", err)
		}
		return f, nil
	}
	if c.Spec.Root == nil || c.Spec.Root.Path == "" {
		return nil, errs.InvalidArgument("the specification names no root filesystem")
	}
	path, err := bundlePath(c.Bundle, c.Spec.Root.Path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, uint(openTreeFlags(true)))
	if err != nil {
		return nil, fmt.Errorf("cannot open the root filesystem %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// rootPropagation is the propagation of the container's mounts towards the
// host's; 0 for the default, by which they follow the host's but not the other
// way round.
func rootPropagation(spec *specs.Spec) (uint64, error) {
	switch spec.Linux.RootfsPropagation {
	case "":
		return 0, nil
	case "shared", "rshared":
		return unix.MS_SHARED, nil
	case "slave", "rslave":
		return unix.MS_SLAVE, nil
	case "private", "rprivate":
		return unix.MS_PRIVATE, nil
	case "unbindable", "runbindable":
		return unix.MS_UNBINDABLE, nil
	}
	return 0, errs.InvalidArgument("unknown root filesystem propagation %q", spec.Linux.RootfsPropagation)
}

func (b *builder) rootShared() bool {
	p, _ := rootPropagation(b.spec)
	return p == unix.MS_SHARED
}

// setUpRoot adds the steps that build the tree of the container and make it the
// root directory.
func (b *builder) setUpRoot(c *Container, root *os.File) error {
	propagation, err := rootPropagation(b.spec)
	if err != nil {
		return err
	}
	fd, err := b.pass(root)
	if err != nil {
		return err
	}
	if err := b.planMounts(); err != nil {
		return err
	}
	b.Set(b.root, fd)
	if err := b.openSources(); err != nil {
		return err
	}
	b.openHostFiles()
	if b.based && !b.inSpare {
		b.enterBase()
	}
	b.attachRoot(propagation, b.attachPoint(c))
	if c.Mtab {
		b.linkMtab()
	}
	if err := b.mountAll(); err != nil {
		return err
	}
	if err := b.makeDevices(); err != nil {
		return err
	}
	if b.process != nil && b.process.Terminal {
		if err := b.openConsole(); err != nil {
			return err
		}
	}
	b.makeWorkingDirectory()
	if err := b.setSysctls(); err != nil {
		return err
	}
	if err := b.labels(); err != nil {
		return err
	}
	if hasCreateHooks(b.spec.Hooks) {
		b.Doing("wait", "for hooks")
		b.Barrier(eventCreateHooks)
	}
	b.restrictPaths()
	b.makeReadonly()
	b.enterRoot(c.NoPivot)
	if propagation != 0 {
		b.Doing("set", "the propagation of the root filesystem")
		b.setattr(spawn.Val(b.root), false, unix.MountAttr{Propagation: propagation})
	}
	b.shut(b.root)
	return nil
}

// attachRoot puts the new root over the old one. Nothing propagates to the host
// from here on: sources of shared mounts have been copied before.
//
// A container without a mount namespace of its own gets a tree that is attached
// nowhere, and goes away with its last process, so that the mount table of the
// host stays as it is (Linux 6.15).
func (b *builder) attachRoot(propagation uint64, at string) {
	if !b.ns.has(unix.CLONE_NEWNS) {
		b.Doing("mount", "the root filesystem")
		b.setattr(spawn.Val(b.root), true, unix.MountAttr{Propagation: unix.MS_PRIVATE})
		return
	}
	flag := uint64(unix.MS_SLAVE)
	if propagation == unix.MS_PRIVATE || propagation == unix.MS_UNBINDABLE {
		flag = unix.MS_PRIVATE
	}
	if !b.based { // of which nothing propagates
		b.Doing("stop", "mounts from propagating to the host")
		b.Sys(unix.SYS_MOUNT, spawn.Int(0), b.Str("/"), spawn.Int(0), spawn.Uint(flag|unix.MS_REC), spawn.Int(0))
	}
	b.Doing("mount", "the root filesystem")
	b.setattr(spawn.Val(b.root), true, unix.MountAttr{Propagation: flag})
	b.Sys(unix.SYS_MOVE_MOUNT, spawn.Val(b.root), b.empty, spawn.Int(unix.AT_FDCWD), b.Str(at), spawn.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// attachPoint is where the root is mounted until it is entered. Hooks that run
// before that find it by the path in the specification, and the host's files
// around it; when nobody looks, the root of the host is as good a place as any
// and takes no lookup.
func (b *builder) attachPoint(c *Container) string {
	if !hasCreateHooks(b.spec.Hooks) {
		return "/"
	}
	if b.spec.Root != nil && b.spec.Root.Path != "" {
		if path, err := bundlePath(b.bundle, b.spec.Root.Path); err == nil && isDir(path) {
			return path
		}
	}
	for _, m := range c.RootMounts {
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok && isDir(mount.Unescape(dir)) {
				return mount.Unescape(dir)
			}
		}
	}
	return "/"
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// enterRoot makes the tree the root directory and lets go of the host's.
func (b *builder) enterRoot(noPivot bool) {
	b.Doing("enter", "the root filesystem")
	if b.hasHost {
		b.Sys(unix.SYS_CLOSE, b.host)
	}
	b.Sys(unix.SYS_FCHDIR, spawn.Val(b.root))
	dot := b.Str(".")
	switch {
	case !b.ns.has(unix.CLONE_NEWNS):
		b.Sys(unix.SYS_CHROOT, dot)
	case b.based:
		// It is mounted on the root of the base already, as the root of a host
		// is on that of its initial ramdisk; and the base is empty.
		b.Sys(unix.SYS_CHROOT, dot)
	case noPivot:
		// Over the root of the mount namespace, so that who joins that gets there.
		b.Sys(unix.SYS_MOVE_MOUNT, spawn.Val(b.root), b.empty, spawn.Int(unix.AT_FDCWD), b.Str("/"), spawn.Int(unix.MOVE_MOUNT_F_EMPTY_PATH)).Ignore(unix.EINVAL, unix.EBUSY, unix.ELOOP)
		b.Sys(unix.SYS_CHROOT, dot)
	default:
		// The old root ends up stacked on the new one at ".", from where it is
		// taken away: no directory for it is needed in the container.
		b.Sys(unix.SYS_PIVOT_ROOT, dot, dot)
		b.Sys(unix.SYS_UMOUNT2, dot, spawn.Int(unix.MNT_DETACH))
	}
	b.Sys(unix.SYS_CHDIR, b.Str("/"))
}

// linkMtab comes before all mounts: what is mounted on /etc is not the image's. A
// container that has no room for the link does without.
func (b *builder) linkMtab() {
	next := b.NewLabel()
	b.Doing("make", "/etc/mtab")
	b.inRoot(b.temp, "/etc", unix.O_PATH|unix.O_DIRECTORY).Else(next, unix.ENOENT, unix.ENOTDIR, unix.ELOOP)
	b.Sys(unix.SYS_SYMLINKAT, b.Str("/proc/mounts"), spawn.Val(b.temp), b.Str("mtab")).Ignore(unix.EEXIST, unix.EROFS, unix.ENOSPC, unix.EDQUOT)
	b.shut(b.temp)
	b.Mark(next)
}

// makeReadonly makes read-only what has been written to until now.
func (b *builder) makeReadonly() {
	for i := range b.mounts {
		if p := &b.mounts[i]; p.lateRO {
			b.Doing("make", p.Destination, "read-only")
			b.setattr(p.src(), false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		}
	}
	if b.spec.Root != nil && b.spec.Root.Readonly {
		b.Doing("make", "the root filesystem", "read-only")
		b.setattr(spawn.Val(b.root), false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
}

// makeWorkingDirectory makes the working directory when the image lacks it.
func (b *builder) makeWorkingDirectory() {
	if b.process == nil || relative(b.process.Cwd) == "." {
		return
	}
	there := b.NewLabel()
	b.Doing("make", "working directory", b.process.Cwd)
	b.inRoot(b.temp, b.process.Cwd, unix.O_PATH).Then(there).Ignore(unix.ENOENT)
	b.Mkpath(b.root, relative(b.process.Cwd), true)
	b.Mark(there)
}

// openHostFiles opens /dev/null of the host, for masking.
func (b *builder) openHostFiles() {
	switch {
	case len(b.spec.Linux.MaskedPaths) == 0:
	case b.inSpare:
		b.null = b.NewReg()
		b.Set(b.null, spawn.Int(fdNull))
	default:
		b.openNull()
	}
}

// openNull opens /dev/null of the host and checks that it is that.
func (b *builder) openNull() {
	b.null = b.NewReg()
	b.Doing("open", "/dev/null")
	if b.based {
		b.Sys(unix.SYS_OPEN_TREE, spawn.Int(unix.AT_FDCWD), b.Str("/dev/null"), spawn.Int(openTreeFlags(false)|unix.AT_SYMLINK_NOFOLLOW)).Save(b.null)
	} else {
		b.Sys(unix.SYS_OPENAT, spawn.Int(unix.AT_FDCWD), b.Str("/dev/null"), spawn.Int(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)).Save(b.null)
	}
	b.stat(spawn.Val(b.null))
	b.CheckByte(b.statxField(128), 1, unix.ENODEV)
	b.CheckByte(b.statxField(132), 3, unix.ENODEV)
	mode := b.NewReg()
	b.Peek16(mode, b.statxField(28), unix.S_IFMT)
	ok := b.NewLabel()
	b.IfEqual(spawn.Val(mode), spawn.Int(unix.S_IFCHR), ok)
	b.Fail(spawn.Int(int(unix.ENODEV)))
	b.Mark(ok)
}

// restrictPaths adds the read-only and the masked paths. A path that is not
// there needs neither.
func (b *builder) restrictPaths() {
	for _, path := range b.outside(b.spec.Linux.ReadonlyPaths) {
		next := b.NewLabel()
		mnt := b.NewReg()
		b.Doing("make", path, "read-only")
		b.inRoot(b.temp, path, unix.O_PATH).Else(next, unix.ENOENT, unix.ENOTDIR)
		b.cloneOf(mnt, spawn.Val(b.temp), true)
		b.setattr(spawn.Val(mnt), true, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		b.moveTo(spawn.Val(mnt), spawn.Val(b.temp))
		b.shut(mnt)
		b.shut(b.temp)
		b.Mark(next)
	}
	masked := b.outside(b.spec.Linux.MaskedPaths)
	if len(masked) == 0 {
		return
	}
	shared := b.NewReg() // the first empty directory, of which others are copies
	used := b.NewReg()   // 1 when b.null is mounted somewhere
	if b.nullMounted || b.inSpare {
		b.Set(used, spawn.Int(1))
	}
	mnt := b.NewReg()
	for _, path := range masked {
		next := b.NewLabel()
		b.Doing("mask", path)
		b.inRoot(b.temp, path, unix.O_PATH).Else(next, unix.ENOENT, unix.ENOTDIR)
		b.maskTarget(mnt, shared, used)
		b.shut(b.temp)
		b.Mark(next)
	}
	if b.places != nil {
		none := b.NewLabel()
		b.IfEqual(spawn.Val(shared), spawn.Int(0), none)
		b.Sys(unix.SYS_DUP3, spawn.Val(shared), spawn.Int(fdMask), spawn.Int(unix.O_CLOEXEC))
		b.Mark(none)
	}
}

// outside lists the paths that are not in trees made ahead.
func (b *builder) outside(paths []string) []string {
	if !b.inTrees {
		return paths
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return inTree(filepath.Clean(p)) })
}

// maskTarget hides what b.temp is: a directory behind an empty read-only tmpfs,
// anything else behind /dev/null.
func (b *builder) maskTarget(mnt, shared, used spawn.Reg) {
	file, first, done := b.NewLabel(), b.NewLabel(), b.NewLabel()
	kind := b.NewReg()
	b.stat(spawn.Val(b.temp))
	b.Peek16(kind, b.statxField(28), unix.S_IFMT)
	dir := b.NewLabel()
	b.IfEqual(spawn.Val(kind), spawn.Int(unix.S_IFDIR), dir)
	b.Jump(file)

	b.Mark(dir)
	b.IfEqual(spawn.Val(shared), spawn.Int(0), first)
	b.cloneOf(mnt, spawn.Val(shared), false)
	b.moveTo(spawn.Val(mnt), spawn.Val(b.temp))
	b.shut(mnt)
	b.Jump(done)

	b.Mark(first)
	if b.inTrees {
		none := b.NewLabel()
		b.cloneOf(shared, spawn.Int(fdMask), false).Else(none, unix.EBADF)
		b.moveTo(spawn.Val(shared), spawn.Val(b.temp))
		b.Jump(done)
		b.Mark(none)
	}
	fs := b.NewReg()
	b.Sys(unix.SYS_FSOPEN, b.Str("tmpfs"), spawn.Int(unix.FSOPEN_CLOEXEC)).Save(fs)
	b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_SET_STRING), b.Str("mode"), b.Str("0755"), spawn.Int(0))
	if l := b.mountLabel(); l != "" {
		b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_SET_STRING), b.Str("context"), b.Str(l), spawn.Int(0))
	}
	b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_CMD_CREATE), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	b.Sys(unix.SYS_FSMOUNT, spawn.Val(fs), spawn.Int(unix.FSMOUNT_CLOEXEC), spawn.Int(unix.MOUNT_ATTR_RDONLY)).Save(shared)
	b.shut(fs)
	b.moveTo(spawn.Val(shared), spawn.Val(b.temp))
	b.Jump(done)

	b.Mark(file)
	if b.based {
		// Until Linux 6.15 copies are made of attached mounts only: the first
		// file gets the mount itself.
		attached := b.NewLabel()
		b.IfEqual(spawn.Val(used), spawn.Int(1), attached)
		b.moveTo(spawn.Val(b.null), spawn.Val(b.temp))
		b.Set(used, spawn.Int(1))
		b.Jump(done)
		b.Mark(attached)
	}
	b.cloneOf(mnt, spawn.Val(b.null), false)
	b.moveTo(spawn.Val(mnt), spawn.Val(b.temp))
	b.shut(mnt)
	b.Mark(done)
}

// setSysctls writes kernel parameters. The kernel shows those of the writer's
// namespaces, so the host's procfs does.
func (b *builder) setSysctls() error {
	keys := make([]string, 0, len(b.spec.Linux.Sysctl))
	for k := range b.spec.Linux.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		path, err := b.sysctlPath(k)
		if err != nil {
			return err
		}
		b.Doing("set", "sysctl "+k)
		if err := b.writeHostProc(path, b.spec.Linux.Sysctl[k]); err != nil {
			return err
		}
	}
	return nil
}
