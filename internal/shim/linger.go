package shim

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// linger keeps the mount namespace of a container until its exit was told. The
// last process in a namespace takes the mounts apart before it counts as dead, and
// the kernel makes it wait until no processor looks at them: the longest part of
// the end of a short container.
//
// The file systems are then in use for a moment after the exit, so it is only done
// where nobody can want to have one back: a disk of the host's, say.
func (t *task) linger(pid int, r *StartRequest, spec *specs.Spec) {
	if !ownMounts(r, spec) {
		return
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return // it is dead already, or was never needed
	}
	t.mnt = f
}

// ownMounts reports whether nothing is mounted in a container but its root, files
// of its bundle and what the kernel makes up.
func ownMounts(r *StartRequest, spec *specs.Spec) bool {
	if r.Runtime != nil || len(r.RootMounts) == 0 || spec.Linux == nil || mayMount(spec.Process) {
		return false
	}
	own := false
	for _, ns := range spec.Linux.Namespaces {
		own = own || ns.Type == specs.MountNamespace && ns.Path == ""
	}
	for _, m := range spec.Mounts {
		switch m.Type {
		case "proc", "tmpfs", "devpts", "sysfs", "mqueue", "cgroup", "cgroup2":
		case "bind":
			own = own && strings.HasPrefix(m.Source, r.Bundle+"/")
		default:
			return false
		}
	}
	return own
}

func mayMount(p *specs.Process) bool {
	return p.Capabilities == nil || slices.Contains(p.Capabilities.Bounding, "CAP_SYS_ADMIN")
}
