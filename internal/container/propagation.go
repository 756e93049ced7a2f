package container

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/mountinfo"

	"github.com/gantry-containers/gantry/internal/errs"
)

// canPropagate refuses a propagation that the mount the source is on cannot
// give: the container would wait in vain for what is mounted there.
func canPropagate(mnt *Mount) error {
	var enough []string
	wanted := "shared"
	switch mnt.Propagation {
	case mount.PropagationShared, mount.PropagationRShared:
		enough = []string{"shared:"}
	case mount.PropagationSlave, mount.PropagationRSlave:
		enough, wanted = []string{"shared:", "master:"}, "shared or slave"
	default:
		return nil
	}
	source, err := filepath.EvalSymlinks(mnt.Source)
	if err != nil {
		return fmt.Errorf("cannot use the mount source: %w", err)
	}
	parents, err := mountinfo.GetMounts(mountinfo.ParentsFilter(source))
	if err != nil {
		return fmt.Errorf("cannot read the mounts of the host: %w", err)
	}
	var on *mountinfo.Info
	for _, p := range parents {
		// Of several on one place the last is what is seen.
		if on == nil || len(p.Mountpoint) >= len(on.Mountpoint) {
			on = p
		}
	}
	if on == nil {
		return nil
	}
	for _, field := range strings.Fields(on.Optional) {
		for _, kind := range enough {
			if strings.HasPrefix(field, kind) {
				return nil
			}
		}
	}
	return errs.InvalidArgument("path %s is mounted on %s but it is not a %s mount", mnt.Source, on.Mountpoint, wanted)
}
