package runflags

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// security is what the process may do and which namespaces it shares.
type security struct {
	capAdd, capDrop                 List
	privileged                      bool
	securityOpt                     List
	readOnly                        bool
	userns, cgroupns, ipc, pid, uts string
	sysctl                          Map
	runtime, isolation              string
}

func (s *security) add(fs *pflag.FlagSet) {
	s.sysctl.check = checkSysctl
	fs.Var(&s.capAdd, "cap-add", "Add Linux capabilities")
	fs.Var(&s.capDrop, "cap-drop", "Drop Linux capabilities")
	fs.BoolVar(&s.privileged, "privileged", false, "Give extended privileges to this container")
	fs.Var(&s.securityOpt, "security-opt", "Security Options")
	fs.BoolVar(&s.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&s.userns, "userns", "", "User namespace to use")
	fs.StringVar(&s.cgroupns, "cgroupns", "", `Cgroup namespace to use (host|private)
'host':    Run the container in the host's cgroup namespace
'private': Run the container in its own private cgroup namespace
'':        Use the cgroup namespace the engine is configured for (default)`)
	fs.StringVar(&s.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&s.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&s.uts, "uts", "", "UTS namespace to use")
	fs.Var(&s.sysctl, "sysctl", "Sysctl options")
	fs.StringVar(&s.runtime, "runtime", "", "Runtime to use for this container")
	fs.StringVar(&s.isolation, "isolation", "", "Container isolation technology (other systems only)")
	hide(fs, "isolation")
}

func (s *security) apply(c *Container) error {
	h := c.HostConfig
	h.PidMode = container.PidMode(s.pid)
	h.UTSMode = container.UTSMode(s.uts)
	h.UsernsMode = container.UsernsMode(s.userns)
	h.CgroupnsMode = container.CgroupnsMode(s.cgroupns)
	h.IpcMode = container.IpcMode(s.ipc)
	switch {
	case !h.PidMode.Valid():
		return errors.New("--pid: invalid PID mode")
	case !h.UTSMode.Valid():
		return errors.New("--uts: invalid UTS mode")
	case !h.UsernsMode.Valid():
		return errors.New("--userns: invalid USER mode")
	case !h.CgroupnsMode.Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	h.CapAdd, h.CapDrop = capabilities(s.capAdd.values), capabilities(s.capDrop.values)
	h.Privileged = s.privileged
	h.ReadonlyRootfs = s.readOnly
	h.Sysctls = s.sysctl.values
	h.Runtime = s.runtime
	h.Isolation = container.Isolation(s.isolation)
	return s.applyOptions(h)
}

// capabilities brings names into the form CAP_NET_ADMIN, sorted and once each.
func capabilities(names []string) []string {
	var out []string
	for _, n := range names {
		n = strings.ToUpper(n)
		if n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// applyOptions resolves what the client must: the text of a seccomp profile,
// and systempaths=unconfined, which the API expresses as empty lists.
func (s *security) applyOptions(h *container.HostConfig) error {
	for _, opt := range s.securityOpt.values {
		if opt == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		k, v, ok := strings.Cut(opt, "=")
		if !ok && k != "no-new-privileges" {
			k, v, ok = strings.Cut(opt, ":")
		}
		if (!ok || v == "") && k != "no-new-privileges" {
			return fmt.Errorf("invalid --security-opt: %q", opt)
		}
		if k == "seccomp" && v != "unconfined" && v != "builtin" {
			profile, err := seccompProfile(v)
			if err != nil {
				return err
			}
			opt = "seccomp=" + profile
		}
		h.SecurityOpt = append(h.SecurityOpt, opt)
	}
	return nil
}

func seccompProfile(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", name, err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", name, err)
	}
	return b.String(), nil
}

// checkSysctl lets through the parameters that belong to a namespace.
func checkSysctl(v string) (string, error) {
	k, _, ok := strings.Cut(v, "=")
	switch k {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
	default:
		ok = ok && (strings.HasPrefix(k, "net.") || strings.HasPrefix(k, "fs.mqueue."))
	}
	if !ok {
		return "", fmt.Errorf("sysctl '%s' is not allowed", v)
	}
	return v, nil
}
