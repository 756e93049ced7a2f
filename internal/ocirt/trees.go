package ocirt

import (
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// trees is what of a specification is about /proc, /dev and /sys/fs/cgroup, for
// containers in which these depend on nothing of the rest: not on the image, not
// on a user's mount. Most containers of a host have the same, so a spare's process
// makes them ahead, in a mount namespace of its own, and a container gets copies.
//
// /sys is not among them: what is in there depends on the network namespace.
type trees struct {
	mounts           []specs.Mount
	masked, readonly []string
	devices          []specs.LinuxDevice
	label            string
}

// treeTops are the directories with what is below them, as they come: each is
// copied as a whole.
var treeTops = []string{"/proc", "/dev", "/sys/fs/cgroup"}

// treesOf returns the trees of a specification, or nil when they are not of that
// kind.
func treesOf(spec *specs.Spec) *trees {
	l := spec.Linux
	if l == nil || spec.Process == nil || spec.Process.Terminal {
		return nil // the terminal is opened through /dev/pts
	}
	t := &trees{devices: l.Devices, label: l.MountLabel}
	tops := 0
	for _, m := range spec.Mounts {
		switch dest := filepath.Clean("/" + m.Destination); {
		case !inTree(dest):
			continue
		case slices.Contains(treeTops, dest):
			tops++
		}
		if !plainTree(&m) {
			return nil
		}
		t.mounts = append(t.mounts, m)
	}
	if tops != len(treeTops) {
		return nil
	}
	for _, d := range l.Devices {
		if path.Dir(path.Clean("/"+d.Path)) != "/dev" {
			return nil
		}
	}
	t.masked, t.readonly = keepTree(l.MaskedPaths), keepTree(l.ReadonlyPaths)
	return t
}

// inTree says whether a path is in one of the trees.
func inTree(dest string) bool {
	return slices.ContainsFunc(treeTops, func(top string) bool { return dest == top || strings.HasPrefix(dest, top+"/") })
}

func keepTree(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return !inTree(filepath.Clean(p)) })
}

// plainTree says whether a mount is of a file system the kernel makes up, and
// looks the same whatever it is mounted on.
func plainTree(m *specs.Mount) bool {
	o := parseOptions(m.Options)
	if o.bind || o.remount || o.copyUp || o.idmap || len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 || o.propagation != 0 {
		return false
	}
	switch m.Type {
	case "proc", "devpts", "mqueue", "cgroup":
		return true
	case "tmpfs":
		return slices.ContainsFunc(o.data, func(opt string) bool { return strings.HasPrefix(opt, "mode=") })
	}
	return false
}

func (t *trees) equal(other *trees) bool { return reflect.DeepEqual(t, other) }

// Descriptors a spare's process keeps from its first program for its second.
const (
	fdTrees = spawn.SpareKept + iota // the directory that is the root of the trees
	fdNull                           // the host's /dev/null, as openHostFiles leaves it
	fdMask                           // the empty directory in place of masked ones, when the trees have such
)

// makeTrees adds the first program of a spare's process: it leaves the mounts of
// the host for the base, and makes the trees there, which may be nil. They are on
// a file system over the base's, and the container's root comes over that.
func (b *builder) makeTrees(t *trees) error {
	b.openNull()
	b.enterBase()
	b.Doing("make", "the trees")
	fs := b.NewReg()
	b.Sys(unix.SYS_FSOPEN, b.Str("tmpfs"), spawn.Int(unix.FSOPEN_CLOEXEC)).Save(fs)
	b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_SET_STRING), b.Str("mode"), b.Str("0555"), spawn.Int(0))
	b.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_CMD_CREATE), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	b.Sys(unix.SYS_FSMOUNT, spawn.Val(fs), spawn.Int(unix.FSMOUNT_CLOEXEC), spawn.Int(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)).Save(b.root)
	b.shut(fs)
	b.Sys(unix.SYS_MOVE_MOUNT, spawn.Val(b.root), b.empty, spawn.Int(unix.AT_FDCWD), b.Str("/"), spawn.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	b.places = map[string]bool{}
	// Until Linux 6.15 copies are made of mounts that are mounted.
	b.target("/null", false)
	b.moveTo(spawn.Val(b.null), spawn.Val(b.temp))
	b.shut(b.temp)
	b.nullMounted = true
	b.Sys(unix.SYS_DUP3, spawn.Val(b.null), spawn.Int(fdNull), spawn.Int(unix.O_CLOEXEC))
	if t == nil {
		return nil
	}
	if err := b.mountAll(); err != nil {
		return err
	}
	if err := b.makeDevices(); err != nil {
		return err
	}
	b.restrictPaths()
	b.setattr(spawn.Val(b.root), false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	b.Sys(unix.SYS_DUP3, spawn.Val(b.root), spawn.Int(fdTrees), spawn.Int(unix.O_CLOEXEC))
	return nil
}

// mountTree puts a copy of one of the trees in its place. It is a copy because
// mount tables show mounts in the order they were made, and the root comes first.
func (b *builder) mountTree(top string) {
	tree := b.NewReg()
	b.target(top, true)
	b.Sys(unix.SYS_OPEN_TREE, spawn.Int(fdTrees), b.Str(top[1:]), spawn.Int(openTreeFlags(true))).Save(tree)
	b.moveTo(spawn.Val(tree), spawn.Val(b.temp))
	b.shut(tree)
	b.shut(b.temp)
}

// spec is a specification of nothing but the trees.
func (t *trees) spec() *specs.Spec {
	spec := &specs.Spec{Linux: &specs.Linux{}}
	if t != nil {
		spec.Mounts = t.mounts
		spec.Linux = &specs.Linux{MaskedPaths: t.masked, ReadonlyPaths: t.readonly, Devices: t.devices, MountLabel: t.label}
	}
	return spec
}
