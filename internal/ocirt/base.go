package ocirt

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// NewBase makes a mount namespace in which there is nothing but an empty,
// read-only tmpfs as its root, for Container.Base. The caller owns it, and must
// not wait for "any child" meanwhile.
//
// Copying the mounts of the host for a container, only to take them all away
// again, is what the kernel takes longest for of all that the child does: it
// waits until no processor looks at them any more. A copy of the base holds
// nothing that would have to go.
func NewBase(ctx context.Context) (*os.File, error) {
	p := &spawn.Program{}
	ns, fs, root := p.NewReg(), p.NewReg(), p.NewReg()
	empty, dot := p.Str(""), p.Str(".")
	p.Doing("open", "a new mount namespace")
	p.Sys(unix.SYS_OPENAT, spawn.Int(unix.AT_FDCWD), p.Str("/proc/self/ns/mnt"), spawn.Int(unix.O_RDONLY|unix.O_CLOEXEC)).Save(ns)
	p.Doing("keep", "mounts of a new mount namespace from the host")
	p.Sys(unix.SYS_MOUNT, spawn.Int(0), p.Str("/"), spawn.Int(0), spawn.Int(unix.MS_REC|unix.MS_PRIVATE), spawn.Int(0))
	p.Doing("make", "an empty root")
	p.Sys(unix.SYS_FSOPEN, p.Str("tmpfs"), spawn.Int(unix.FSOPEN_CLOEXEC)).Save(fs)
	for _, option := range [][2]string{{"mode", "0555"}, {"nr_inodes", "1"}, {"size", "4k"}} {
		p.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_SET_STRING), p.Str(option[0]), p.Str(option[1]), spawn.Int(0))
	}
	p.Sys(unix.SYS_FSCONFIG, spawn.Val(fs), spawn.Int(unix.FSCONFIG_CMD_CREATE), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	p.Sys(unix.SYS_FSMOUNT, spawn.Val(fs), spawn.Int(unix.FSMOUNT_CLOEXEC),
		spawn.Int(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)).Save(root)
	p.Sys(unix.SYS_MOVE_MOUNT, spawn.Val(root), empty, spawn.Int(unix.AT_FDCWD), p.Str("/"), spawn.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	p.Doing("enter", "an empty root")
	p.Sys(unix.SYS_FCHDIR, spawn.Val(root))
	p.Sys(unix.SYS_PIVOT_ROOT, dot, dot)
	p.Sys(unix.SYS_UMOUNT2, dot, spawn.Int(unix.MNT_DETACH))
	p.SendFD(spawn.Val(ns))
	p.Sys(unix.SYS_EXIT_GROUP, spawn.Int(0)).Last()
	child, err := p.Start(ctx, &spawn.Attr{Flags: unix.CLONE_NEWNS, Floor: 3})
	if err != nil {
		return nil, fmt.Errorf("cannot make an empty mount namespace: %w", err)
	}
	child.PidFD.Close()
	for {
		if _, err := unix.Wait4(child.Pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	if len(child.Files) != 1 {
		return nil, errors.New("cannot make an empty mount namespace: it was not handed over")
	}
	return child.Files[0], nil
}

// usesBase says whether the container's mount namespace is a copy of the base.
// What needs the mounts of the host around it is made of a copy of the host's:
// hooks, mounts that are to propagate to the host, and user namespaces, for
// which the kernel locks what was copied.
func usesBase(c *Container, ns *namespaces) bool {
	propagation, _ := rootPropagation(c.Spec)
	return c.Base != nil && !c.NoPivot && ns.fresh&unix.CLONE_NEWNS != 0 && !ns.has(unix.CLONE_NEWUSER) &&
		propagation != unix.MS_SHARED && noHooks(c.Spec.Hooks)
}

func noHooks(h *specs.Hooks) bool {
	return !hasCreateHooks(h) && (h == nil || len(h.StartContainer) == 0)
}

// enterBase adds the steps by which the child leaves the mounts of the host:
// from here on no path leads to them.
func (b *builder) enterBase() {
	b.Doing("create", "a mount namespace")
	b.Sys(unix.SYS_SETNS, b.baseFD, spawn.Int(unix.CLONE_NEWNS))
	b.Sys(unix.SYS_UNSHARE, spawn.Int(unix.CLONE_NEWNS))
}

// hostTree is the descriptor of a detached copy of what is mounted at a path of
// the host. The child makes it when it still sees the host when its turn comes,
// so that mount tables show mounts in the order of the specification.
func (b *builder) hostTree(path string, recursive bool) (spawn.Arg, error) {
	if b.based {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, uint(openTreeFlags(recursive)))
		if err != nil {
			return spawn.Arg{}, err
		}
		return b.own(os.NewFile(uintptr(fd), path))
	}
	r := b.NewReg()
	b.Sys(unix.SYS_OPEN_TREE, spawn.Int(unix.AT_FDCWD), b.Str(path), spawn.Int(openTreeFlags(recursive))).Save(r)
	return spawn.Val(r), nil
}
