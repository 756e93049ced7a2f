package ocirt

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// sysctlPath is the file of a kernel parameter below /proc. Parameters that
// belong to no namespace of the container's own are refused: they would change
// the host.
func (b *builder) sysctlPath(key string) (string, error) {
	// As sysctl(8): the first separator decides which of "." and "/" is one.
	name := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	need, what := sysctlNamespace(name)
	switch {
	case strings.Contains("/"+name+"/", "/../"):
		return "", errs.InvalidArgument("invalid sysctl %q", key)
	case name == "kernel/hostname":
		return "", errs.InvalidArgument("sysctl %q is not allowed as it conflicts with the hostname of the container", key)
	case need == 0:
		return "", errs.InvalidArgument("sysctl %q is not in a separate kernel namespace", key)
	case !b.ns.has(need):
		return "", errs.InvalidArgument("sysctl %q is not allowed in the host's %s namespace", key, what)
	}
	return "sys/" + name, nil
}

func sysctlNamespace(name string) (flag uint64, what string) {
	switch name {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall",
		"kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced":
		return unix.CLONE_NEWIPC, "ipc"
	case "kernel/domainname", "kernel/hostname":
		return unix.CLONE_NEWUTS, "uts"
	}
	switch {
	case strings.HasPrefix(name, "fs/mqueue/"):
		return unix.CLONE_NEWIPC, "ipc"
	case strings.HasPrefix(name, "net/"):
		return unix.CLONE_NEWNET, "network"
	case strings.HasPrefix(name, "user/"):
		return unix.CLONE_NEWUSER, "user"
	}
	return 0, ""
}
