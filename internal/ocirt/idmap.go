package ocirt

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// idmapped makes a detached copy of the source of a bind mount in which owners
// are translated: by the mappings of the mount or, without any, by those of the
// container. It needs the privileges of the host, so the parent does it.
func (b *builder) idmapped(p *mountPlan) (*os.File, error) {
	ns, err := b.mappingNamespace(p)
	if err != nil {
		return nil, fmt.Errorf("cannot map owners of %s: %w", p.Destination, err)
	}
	if ns != b.ns.user {
		defer ns.Close()
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, p.Source, uint(openTreeFlags(p.recursive)))
	if err != nil {
		return nil, fmt.Errorf("cannot mount %s on %s: %w", p.Source, p.Destination, err)
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if p.idmapTree || !p.idmap && p.recursive {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EINVAL) {
			return nil, errs.NotImplemented("cannot map owners of %s: its file system or this kernel has no idmapped mounts", p.Source)
		}
		return nil, fmt.Errorf("cannot map owners of %s on %s: %w", p.Source, p.Destination, err)
	}
	return os.NewFile(uintptr(fd), p.Source), nil
}

func (b *builder) mappingNamespace(p *mountPlan) (*os.File, error) {
	uids, gids := p.UIDMappings, p.GIDMappings
	if uids == nil && gids == nil {
		if b.ns.joined&unix.CLONE_NEWUSER != 0 {
			return b.ns.user, nil
		}
		uids, gids = b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings
	}
	if len(uids) == 0 || len(gids) == 0 {
		return nil, errs.InvalidArgument("both user and group mappings are needed")
	}
	return newUserNamespace(uids, gids)
}

// newUserNamespace makes a user namespace nobody is in, to describe a mapping.
func newUserNamespace(uids, gids []specs.LinuxIDMapping) (ns *os.File, err error) {
	p := &spawn.Program{}
	p.Doing("make", "a user namespace")
	p.Barrier(1)
	// The child has done its duty when the barrier is reached; the error ends it.
	enough := errors.New("enough")
	_, err = p.Start(context.Background(), &spawn.Attr{Flags: unix.CLONE_NEWUSER, Barrier: func(c *spawn.Child, _ int) error {
		if err := writeUserMaps(c.Current(), uids, gids); err != nil {
			return err
		}
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", c.Current())); err != nil {
			return err
		}
		return enough
	}})
	if err != enough {
		return nil, err
	}
	return ns, nil
}
