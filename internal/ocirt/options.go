package ocirt

import (
	"strings"

	"golang.org/x/sys/unix"
)

// options are the mount options of the specification, sorted by what they are
// for (config.md, "Linux mount options").
type options struct {
	bind, recursive    bool // bind, rbind
	set, clr           uint64
	recSet, recClr     uint64 // the same for the whole tree: rro and friends
	propagation        uint64 // MS_PRIVATE and so on; 0 when not asked for
	propagateRecursive bool
	super              []string // flags of the superblock: sync, dirsync, lazytime
	data               []string // options of the file system
	copyUp             bool
	idmap, idmapTree   bool
	remount            bool
}

func parseOptions(list []string) (o options) {
	for _, opt := range list {
		if !o.structure(opt) && !o.attribute(opt) {
			o.data = append(o.data, opt)
		}
	}
	return o
}

// structure handles options about what kind of mount it is.
func (o *options) structure(opt string) bool {
	switch opt {
	case "bind":
		o.bind = true
	case "rbind":
		o.bind, o.recursive = true, true
	case "private", "rprivate":
		o.propagate(unix.MS_PRIVATE, opt)
	case "shared", "rshared":
		o.propagate(unix.MS_SHARED, opt)
	case "slave", "rslave":
		o.propagate(unix.MS_SLAVE, opt)
	case "unbindable", "runbindable":
		o.propagate(unix.MS_UNBINDABLE, opt)
	case "sync", "dirsync", "lazytime", "mand", "iversion":
		o.super = append(o.super, opt)
	case "async", "nolazytime", "nomand", "noiversion", "defaults", "loud", "silent", "":
		// what is so anyway
	case "tmpcopyup":
		o.copyUp = true
	case "idmap":
		o.idmap = true
	case "ridmap":
		o.idmap, o.idmapTree = true, true
	case "remount":
		o.remount = true
	default:
		return false
	}
	return true
}

func (o *options) propagate(flag uint64, opt string) {
	o.propagation = flag
	o.propagateRecursive = strings.HasPrefix(opt, "r")
}

// attribute handles options that mount_setattr knows; a leading "r" means the
// whole tree ("ro", "rw" and "relatime" have theirs in the name).
func (o *options) attribute(opt string) bool {
	if set, clr, ok := attributeBits(opt); ok {
		o.set, o.clr = o.set&^clr|set, o.clr|clr
		if clr&unix.MOUNT_ATTR__ATIME == 0 {
			o.clr &^= set
		}
		return true
	}
	name, found := strings.CutPrefix(opt, "r")
	if !found {
		return false
	}
	set, clr, ok := attributeBits(name)
	if ok {
		o.recSet, o.recClr = o.recSet&^clr|set, o.recClr|clr
	}
	return ok
}

// attributeBits translates one option. The access time options are values of
// one field, which has to be cleared to set any of them.
func attributeBits(opt string) (set, clr uint64, ok bool) {
	const atime = unix.MOUNT_ATTR__ATIME
	switch opt {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, 0, true
	case "rw":
		return 0, unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, 0, true
	case "suid":
		return 0, unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, 0, true
	case "dev":
		return 0, unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, 0, true
	case "exec":
		return 0, unix.MOUNT_ATTR_NOEXEC, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0, true
	case "diratime":
		return 0, unix.MOUNT_ATTR_NODIRATIME, true
	case "nosymfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, 0, true
	case "symfollow":
		return 0, unix.MOUNT_ATTR_NOSYMFOLLOW, true
	case "relatime", "atime", "norelatime", "nostrictatime":
		return unix.MOUNT_ATTR_RELATIME, atime, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, atime, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, atime, true
	}
	return 0, 0, false
}
