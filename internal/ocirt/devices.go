package ocirt

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// defaultDevices are those every container has (config-linux.md, "Default
// Devices"); /dev/console and /dev/ptmx come with the terminal and devpts.
func defaultDevices() []specs.LinuxDevice {
	list := []struct {
		path         string
		major, minor int64
	}{
		{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},
		{"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
	}
	devices := make([]specs.LinuxDevice, len(list))
	mode := os.FileMode(0o666)
	for i, d := range list {
		devices[i] = specs.LinuxDevice{Path: d.path, Type: "c", Major: d.major, Minor: d.minor, FileMode: &mode}
	}
	return devices
}

// makeDevices makes the device nodes and the links every /dev has. A /dev that
// is a bind mount is left as it is.
func (b *builder) makeDevices() error {
	if b.inTrees {
		return nil
	}
	for _, m := range b.mounts {
		if m.Destination == "/dev" && m.bind {
			return nil
		}
	}
	// Like everything, a device the specification lists replaces a default one.
	all := defaultDevices()
	for _, d := range b.spec.Linux.Devices {
		all = replaceDevice(all, d)
	}
	dev := b.NewReg()
	b.Doing("make", "/dev")
	b.target("/dev", true)
	b.Set(dev, spawn.Val(b.temp))
	for i := range all {
		if err := b.makeDevice(dev, &all[i]); err != nil {
			return err
		}
	}
	b.Doing("make", "the links in /dev")
	for _, l := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		b.Sys(unix.SYS_SYMLINKAT, b.Str(l[0]), spawn.Val(dev), b.Str(l[1])).Ignore(unix.EEXIST)
	}
	// Not every container has a devpts, but a link into nowhere does no harm.
	b.Sys(unix.SYS_UNLINKAT, spawn.Val(dev), b.Str("ptmx"), spawn.Int(0)).Ignore(unix.ENOENT, unix.EBUSY, unix.EISDIR)
	b.Sys(unix.SYS_SYMLINKAT, b.Str("pts/ptmx"), spawn.Val(dev), b.Str("ptmx")).Ignore(unix.EEXIST)
	b.shut(dev)
	return nil
}

func replaceDevice(list []specs.LinuxDevice, d specs.LinuxDevice) []specs.LinuxDevice {
	d.Path = path.Clean("/" + d.Path)
	for i := range list {
		if list[i].Path == d.Path {
			list[i] = d
			return list
		}
	}
	return append(list, d)
}

func (b *builder) makeDevice(dev spawn.Reg, d *specs.LinuxDevice) error {
	kind, err := deviceKind(d.Type)
	if err != nil {
		return err
	}
	if d.Path == "/dev/ptmx" { // is a link into the container's own devpts
		return nil
	}
	b.Doing("make", "device "+d.Path)
	dir, name := spawn.Val(dev), strings.TrimPrefix(d.Path, "/dev/")
	other := !strings.HasPrefix(d.Path, "/dev/") || strings.Contains(name, "/")
	if other {
		b.target(path.Dir(d.Path), true)
		dir, name = spawn.Val(b.temp), path.Base(d.Path)
	}
	if b.ns.has(unix.CLONE_NEWUSER) {
		b.bindDevice(d)
	} else {
		b.makeNode(dir, name, kind, d)
	}
	if other {
		b.shut(b.temp)
	}
	return nil
}

func deviceKind(t string) (uint32, error) {
	switch t {
	case "c", "u":
		return unix.S_IFCHR, nil
	case "b":
		return unix.S_IFBLK, nil
	case "p":
		return unix.S_IFIFO, nil
	}
	return 0, errs.InvalidArgument("unknown device type %q", t)
}

// makeNode is mknod with everything: the mask is 0 in the child, so the mode
// needs no second call.
func (b *builder) makeNode(dir spawn.Arg, name string, kind uint32, d *specs.LinuxDevice) {
	mode := os.FileMode(0o666)
	if d.FileMode != nil {
		mode = *d.FileMode
	}
	next := b.NewLabel()
	dev := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	b.Sys(unix.SYS_MKNODAT, dir, b.Str(name), spawn.Uint(uint64(kind|uint32(mode.Perm()))), spawn.Uint(dev)).Else(next, unix.EEXIST)
	if id(d.UID) != 0 || id(d.GID) != 0 {
		b.Sys(unix.SYS_FCHOWNAT, dir, b.Str(name), spawn.Uint(uint64(id(d.UID))), spawn.Uint(uint64(id(d.GID))), spawn.Int(unix.AT_SYMLINK_NOFOLLOW))
	}
	b.Mark(next)
}

func id(p *uint32) uint32 {
	if p == nil {
		return 0
	}
	return *p
}

// bindDevice takes the host's node: a user namespace may not make any.
func (b *builder) bindDevice(d *specs.LinuxDevice) {
	node := b.NewReg()
	saved := b.NewReg()
	b.Set(saved, spawn.Val(b.temp))
	b.Sys(unix.SYS_OPEN_TREE, spawn.Int(unix.AT_FDCWD), b.Str(hostDevice(d)), spawn.Int(openTreeFlags(false))).Save(node)
	b.target(d.Path, false)
	b.moveTo(spawn.Val(node), spawn.Val(b.temp))
	b.shut(b.temp)
	b.shut(node)
	b.Set(b.temp, spawn.Val(saved))
}

// hostDevice finds the node of a device on the host: usually it has the same
// name, and always one in /sys/dev that tells it.
func hostDevice(d *specs.LinuxDevice) string {
	var st unix.Stat_t
	if unix.Stat(d.Path, &st) == nil && int64(unix.Major(st.Rdev)) == d.Major && int64(unix.Minor(st.Rdev)) == d.Minor {
		return d.Path
	}
	kind := "char"
	if d.Type == "b" {
		kind = "block"
	}
	uevent, err := os.ReadFile(filepath.Join("/sys/dev", kind, itoa(d.Major)+":"+itoa(d.Minor), "uevent"))
	if err != nil {
		return d.Path
	}
	for line := range strings.Lines(string(uevent)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok {
			return filepath.Join("/dev", name)
		}
	}
	return d.Path
}
