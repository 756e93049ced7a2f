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

// mountPlan is a mount of the specification on its way into the program.
type mountPlan struct {
	specs.Mount
	options
	source spawn.Reg // descriptor of the detached mount, once there is one
	dir    bool      // the target is a directory
	opened bool      // source is set before the root is attached
	fixed  *spawn.Arg
	lateRO bool // becomes read-only when everything is in place
}

// planMounts validates the mounts and looks at the sources of bind mounts.
func (b *builder) planMounts() error {
	for _, m := range b.spec.Mounts {
		p := mountPlan{Mount: m, options: parseOptions(m.Options), dir: true}
		if !filepath.IsAbs(p.Destination) {
			p.Destination = "/" + p.Destination // version 1.0 of the specification allowed it
		}
		p.Destination = filepath.Clean(p.Destination)
		if m.Type == "bind" && !p.remount {
			p.bind = true
			if !p.recursive && !hasOption(m.Options, "bind") {
				p.recursive = true
			}
		}
		if err := b.planMount(&p); err != nil {
			return err
		}
		b.mounts = append(b.mounts, p)
	}
	return nil
}

func hasOption(list []string, opt string) bool {
	for _, o := range list {
		if o == opt {
			return true
		}
	}
	return false
}

func (b *builder) planMount(p *mountPlan) error {
	if err := checkProcTarget(p); err != nil {
		return err
	}
	if p.bind {
		src, err := bundlePath(b.bundle, p.Source)
		if err != nil {
			return err
		}
		p.Source = src
		fi, err := os.Stat(src)
		if err != nil {
			return fmt.Errorf("cannot mount %s on %s: %w", src, p.Destination, unwrapPath(err))
		}
		p.dir = fi.IsDir()
	}
	// Targets inside of these are made, and devices, after they are mounted. The
	// attributes of a tree that is attached nowhere cannot change later.
	if b.ns.has(unix.CLONE_NEWNS) && !p.bind && !p.remount && p.Type == "tmpfs" && p.set&unix.MOUNT_ATTR_RDONLY != 0 {
		p.set &^= unix.MOUNT_ATTR_RDONLY
		p.lateRO = true
	}
	return nil
}

// unwrapPath gives the errno of a PathError whose path is in the message anyway.
func unwrapPath(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}

// checkProcTarget refuses mounts inside of /proc, which could fake what other
// programs believe about processes, except over files known to be harmless (the
// list of lxcfs).
func checkProcTarget(p *mountPlan) error {
	if p.Destination == "/proc" {
		if p.bind && filepath.Clean(p.Source) != "/proc" {
			var st unix.Statfs_t
			if unix.Statfs(p.Source, &st) != nil || st.Type != unix.PROC_SUPER_MAGIC {
				return errs.InvalidArgument("%s cannot be mounted on /proc: it is not a procfs", p.Source)
			}
		}
		return nil
	}
	rest, ok := strings.CutPrefix(p.Destination, "/proc/")
	if !ok || p.remount {
		return nil
	}
	switch rest {
	case "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
		"net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled":
		return nil
	}
	return errs.InvalidArgument("%q cannot be mounted because it is inside /proc", p.Destination)
}

// openSources makes detached copies of what has to be copied before mounts stop
// to propagate to the host, with the privileges of the host, or before the child
// leaves the host's mounts for the base. All other sources are opened when it is
// their turn, because mount tables show mounts in the order they were made.
func (b *builder) openSources() error {
	for i := range b.mounts {
		p := &b.mounts[i]
		var m mount.Mount
		switch {
		case p.remount || p.Type == "cgroup" || p.Type == "cgroup2":
			continue
		case p.bind && (p.idmap || p.UIDMappings != nil):
			f, err := b.idmapped(p)
			if err != nil {
				return err
			}
			if err := b.fixSource(p, f); err != nil {
				return err
			}
			continue
		case p.bind && !b.based && !b.ns.has(unix.CLONE_NEWUSER):
			if b.rootShared() {
				b.Doing("mount", p.Source, "on", p.Destination)
				b.openSource(p)
			}
			continue
		case p.bind:
			// In a user namespace the way to the source may be closed; from the
			// base there is none.
			fd, err := unix.OpenTree(unix.AT_FDCWD, p.Source, uint(openTreeFlags(p.recursive)))
			if err != nil {
				return fmt.Errorf("cannot mount %s on %s: %w", p.Source, p.Destination, err)
			}
			if err := b.fixSource(p, os.NewFile(uintptr(fd), p.Source)); err != nil {
				return err
			}
			continue
		case p.Type == "proc" && len(b.procs) > 0:
			if err := b.fixSource(p, b.takeProc()); err != nil {
				return err
			}
			continue
		case b.ownType(p.Type) && !hasPrefix(p.data, mount.Subdir):
			continue
		default:
			m = mount.Mount{Type: p.Type, Source: p.Source, Options: append(append([]string{}, p.super...), p.data...)}
		}
		// A file system with a device or a server behind it needs nothing of the
		// container's namespaces, but the privileges of the host.
		f, err := mount.Detached([]mount.Mount{m})
		if err != nil {
			return fmt.Errorf("cannot mount %s on %s: %w", p.Source, p.Destination, err)
		}
		if err := b.fixSource(p, f); err != nil {
			return err
		}
		if fi, err := f.Stat(); err == nil {
			p.dir = fi.IsDir()
		}
	}
	return nil
}

func hasPrefix(list []string, prefix string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, prefix) })
}

// openSource makes the detached copy of a bind mount in the child.
func (b *builder) openSource(p *mountPlan) {
	p.source = b.NewReg()
	p.opened = true
	b.Sys(unix.SYS_OPEN_TREE, spawn.Int(unix.AT_FDCWD), b.Str(p.Source), spawn.Int(openTreeFlags(p.recursive))).Save(p.source)
}

func (b *builder) fixSource(p *mountPlan, f *os.File) error {
	fd, err := b.own(f)
	if err != nil {
		return err
	}
	p.fixed, p.opened = &fd, true
	return nil
}

func openTreeFlags(recursive bool) int {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return flags
}

// ownType says whether a file system shows the namespaces of who mounts it, so
// that the child has to.
func (b *builder) ownType(t string) bool {
	switch t {
	case "proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "bpf", "binder", "fuse":
		return true
	}
	return b.ns.has(unix.CLONE_NEWUSER)
}

func (p *mountPlan) src() spawn.Arg {
	if p.fixed != nil {
		return *p.fixed
	}
	return spawn.Val(p.source)
}

// mountAll attaches the mounts in the order of the specification.
func (b *builder) mountAll() error {
	for i := range b.mounts {
		p := &b.mounts[i]
		from := p.Source
		if !p.bind && (from == "" || from == p.Type || from == "none") {
			from = p.Type
		}
		b.Doing("mount", from, "on", p.Destination)
		if b.inTrees && inTree(p.Destination) {
			if slices.Contains(treeTops, p.Destination) {
				b.mountTree(p.Destination)
			}
			continue
		}
		if err := b.mountOne(p); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) mountOne(p *mountPlan) error {
	switch {
	case p.remount:
		b.inRoot(b.temp, p.Destination, unix.O_PATH)
		b.attributes(spawn.Val(b.temp), &p.options)
		b.shut(b.temp)
		return nil
	case p.Type == "cgroup" || p.Type == "cgroup2":
		return b.mountCgroup(p)
	case p.opened || p.bind:
		if !p.opened {
			b.openSource(p)
		}
		b.target(p.Destination, p.dir)
	default:
		b.newMount(p)
	}
	if p.bind {
		b.slaveByDefault(p)
	}
	switch {
	case p.bind || p.opened:
		b.attributes(p.src(), &p.options)
	case p.propagation != 0:
		b.setattr(p.src(), p.propagateRecursive, unix.MountAttr{Propagation: p.propagation})
	}
	b.moveTo(p.src(), spawn.Val(b.temp))
	b.shut(b.temp)
	return nil
}

// slaveByDefault keeps a bind mount from being a peer of its source, unless that
// was asked for: it still learns what is mounted on the host, but nothing goes
// the other way.
func (b *builder) slaveByDefault(p *mountPlan) {
	if p.propagation == 0 && !b.rootShared() {
		b.setattr(p.src(), true, unix.MountAttr{Propagation: unix.MS_SLAVE})
	}
}

// attributes applies what mount_setattr knows of the options to a detached
// mount.
func (b *builder) attributes(fd spawn.Arg, o *options) {
	if o.set|o.clr != 0 {
		b.setattr(fd, false, unix.MountAttr{Attr_set: o.set, Attr_clr: o.clr})
	}
	if o.recSet|o.recClr != 0 {
		b.setattr(fd, true, unix.MountAttr{Attr_set: o.recSet, Attr_clr: o.recClr})
	}
	if o.propagation != 0 {
		b.setattr(fd, o.propagateRecursive, unix.MountAttr{Propagation: o.propagation})
	}
}

// target opens where something will be mounted into b.temp, making it first
// when it is missing.
func (b *builder) target(path string, dir bool) {
	if b.places != nil {
		b.place(relative(path), dir)
		return
	}
	ready := b.NewLabel()
	b.Set(b.made, spawn.Int(0))
	b.inRoot(b.temp, path, unix.O_PATH).Then(ready).Ignore(unix.ENOENT)
	b.Mkpath(b.root, relative(path), dir)
	b.inRoot(b.temp, path, unix.O_PATH)
	b.Set(b.made, spawn.Int(1))
	b.Mark(ready)
}

// place is target where no path needs care: there is nothing on the way but what was
// made here.
func (b *builder) place(path string, dir bool) {
	for i := range path {
		if path[i] == '/' {
			b.makePlace(path[:i], true)
		}
	}
	b.makePlace(path, dir)
	b.Sys(unix.SYS_OPENAT, spawn.Val(b.root), b.Str(path), spawn.Int(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)).Save(b.temp)
	b.Set(b.made, spawn.Int(1))
}

func (b *builder) makePlace(path string, dir bool) {
	if b.places[path] {
		return
	}
	b.places[path] = true
	if dir {
		b.Sys(unix.SYS_MKDIRAT, spawn.Val(b.root), b.Str(path), spawn.Int(0o755)).Ignore(unix.EEXIST)
	} else {
		b.Sys(unix.SYS_MKNODAT, spawn.Val(b.root), b.Str(path), spawn.Int(unix.S_IFREG|0o755), spawn.Int(0)).Ignore(unix.EEXIST)
	}
}

// newMount makes a file system and opens its target.
func (b *builder) newMount(p *mountPlan) {
	fs := b.NewReg()
	p.source = b.NewReg()
	fallback, made := b.NewLabel(), b.NewLabel()
	b.target(p.Destination, true)
	b.Sys(unix.SYS_FSOPEN, b.Str(p.Type), spawn.Int(unix.FSOPEN_CLOEXEC)).Save(fs)
	set := func(cmd int, key, value string) spawn.Step {
		v := spawn.Int(0)
		if cmd == unix.FSCONFIG_SET_STRING {
			v = b.Str(value)
		}
		return b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(cmd), b.Str(key), v, spawn.Int(0))
	}
	if p.Source != "" {
		set(unix.FSCONFIG_SET_STRING, "source", p.Source)
	}
	for _, flag := range p.super {
		set(unix.FSCONFIG_SET_FLAG, flag, "")
	}
	for _, opt := range p.data {
		if key, value, ok := strings.Cut(opt, "="); ok {
			set(unix.FSCONFIG_SET_STRING, key, value)
		} else {
			set(unix.FSCONFIG_SET_FLAG, key, "")
		}
	}
	if l := b.mountLabel(); p.Type == "tmpfs" && l != "" {
		set(unix.FSCONFIG_SET_STRING, "context", l)
	}
	create := b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_CMD_CREATE), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	if p.Type == "sysfs" {
		// A user namespace may mount sysfs only together with its own network
		// namespace. What it may see of the host's, it may see this way too.
		create.Else(fallback, unix.EPERM)
	}
	attrs := p.set | p.recSet
	b.Sys(unix.SYS_FSMOUNT, spawn.Val(fs), spawn.Int(unix.FSMOUNT_CLOEXEC), spawn.Uint(attrs)).Save(p.source)
	b.shut(fs)
	if p.Type == "tmpfs" {
		b.inheritMode(p)
	}
	b.Jump(made)
	b.Mark(fallback)
	if p.Type == "sysfs" {
		b.shut(fs)
		b.Sys(unix.SYS_OPEN_TREE, spawn.Int(unix.AT_FDCWD), b.Str("/sys"), spawn.Int(openTreeFlags(true))).Save(p.source)
		b.setattr(spawn.Val(p.source), true, unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_SLAVE})
	}
	b.Mark(made)
}

// inheritMode gives a tmpfs the mode of the directory it hides, if there was
// one, unless the options say otherwise, and with tmpcopyup the content as well.
func (b *builder) inheritMode(p *mountPlan) {
	explicit := false
	for _, opt := range p.data {
		explicit = explicit || strings.HasPrefix(opt, "mode=")
	}
	if !explicit {
		fresh := b.NewLabel()
		b.IfEqual(spawn.Val(b.made), spawn.Int(1), fresh)
		b.stat(spawn.Val(b.temp))
		mode := b.NewReg()
		b.Peek16(mode, b.statxField(28), 0o7777)
		b.Sys(unix.SYS_FCHMODAT, spawn.Val(p.source), b.Str("."), spawn.Val(mode))
		b.Mark(fresh)
	}
	if p.copyUp {
		b.Set(b.copyAt, spawn.Int(len(b.copyUps)))
		b.copyUps = append(b.copyUps, copyUp{from: b.temp, to: p.source, path: p.Destination})
		b.Barrier(eventCopyUp)
	}
}

// stat is statx of an open descriptor into the buffer for it.
func (b *builder) stat(fd spawn.Arg) spawn.Step {
	return b.Sys(unix.SYS_STATX, fd, b.empty, spawn.Int(unix.AT_EMPTY_PATH), spawn.Int(unix.STATX_BASIC_STATS), b.statx)
}

// statxField is the address of a field of struct statx: 28 is stx_mode, 128 and
// 132 are stx_rdev_major and stx_rdev_minor.
func (b *builder) statxField(offset int) spawn.Arg { return b.statx.Plus(offset) }
