// Package ocispec turns what a user asked for into an OCI runtime
// configuration: the process, its namespaces, mounts, devices, limits and
// privileges, with Docker's defaults for all that was not said.
//
// It is a function of its input and of what the host can do; it keeps nothing
// but the seccomp profiles it has resolved before, starts nothing, and does not know what a container record is. Names of users
// must have been resolved and volumes found before.
package ocispec

import (
	"fmt"
	"path"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	imount "github.com/gantry-containers/gantry/internal/mount"
)

// User is who the process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary ones
	Home     string
}

// Mount is a mount of the container whose source exists.
type Mount struct {
	Type        mount.Type
	Source      string // absolute, on the host; not of a tmpfs or an image
	Destination string // absolute and clean
	RW          bool
	Propagation mount.Propagation // of a bind
	Bind        mount.BindOptions
	Tmpfs       mount.TmpfsOptions
	Stack       []imount.Mount // of an image: how it is mounted, read-only
	Subpath     string         // what of the image is mounted; "" for all
}

// Input is all the configuration is made of. Paths of namespaces are empty for
// a new one; Host says which are not made at all.
type Input struct {
	ID         string
	Args       []string
	Config     *api.Config
	HostConfig *api.HostConfig
	User       User
	Mounts     []Mount
	Hostname   string

	PIDNamespace, IPCNamespace, NetworkNamespace string
	OwnNetwork                                   bool   // the caller hands over a network namespace
	ShmPath                                      string // bind this directory as /dev/shm instead of a tmpfs

	HostsPath, ResolvConfPath, HostnamePath string // files that are bound into the container; "" for none
	InitPath                                string // run the command under this init; "" for none
	CgroupPath                              string // below every hierarchy's root
	SeccompProfile                          string // the engine's: a file, "unconfined" or "" for the built-in one
	AppArmorProfile                         string // for who asks for none and is not privileged; "" for none
	DefaultUlimits                          []*api.Ulimit
	CDISpecDirs                             []string // where devices are described that are asked for by name
}

// initInContainer is where the init is bound to, the place Docker uses.
const initInContainer = "/sbin/docker-init"

// Build makes the configuration. Errors of class errdefs.ErrInvalidArgument
// name what the user asked for and cannot have.
func Build(in *Input) (*specs.Spec, error) {
	s := &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: "rootfs", Readonly: in.HostConfig.ReadonlyRootfs},
		Hostname:    in.Hostname,
		Domainname:  in.Config.Domainname,
		Annotations: in.HostConfig.Annotations,
		Linux:       &specs.Linux{CgroupsPath: in.CgroupPath},
	}
	if in.HostConfig.UTSMode.IsHost() {
		s.Hostname, s.Domainname = "", ""
	}
	for _, step := range []func(*specs.Spec, *Input) error{
		process, namespaces, sysctls, mounts, paths, devices, resources, privileges, initProcess, deviceRequests,
	} {
		if err := step(s, in); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func process(s *specs.Spec, in *Input) error {
	cwd := in.Config.WorkingDir
	if cwd == "" {
		cwd = "/"
	}
	s.Process = &specs.Process{
		Terminal: in.Config.Tty,
		Args:     in.Args,
		Env:      environment(in),
		Cwd:      cwd,
		User:     in.User.spec(in.HostConfig.Umask),
	}
	if adj := in.HostConfig.OomScoreAdj; adj != 0 {
		s.Process.OOMScoreAdj = &adj
	}
	if size := in.HostConfig.ConsoleSize; in.Config.Tty && size != [2]uint{} {
		s.Process.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	seen := map[string]bool{}
	for _, list := range [][]*api.Ulimit{in.HostConfig.Ulimits, in.DefaultUlimits} {
		for _, u := range list {
			if seen[u.Name] {
				continue
			}
			seen[u.Name] = true
			s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{
				Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
			})
		}
	}
	return nil
}

func (u *User) spec(umask *uint32) specs.User {
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups, Umask: umask}
}

// DefaultPath is the PATH of a container whose image sets none.
const DefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func environment(in *Input) []string {
	env := []string{DefaultPath}
	if in.Hostname != "" {
		env = append(env, "HOSTNAME="+in.Hostname)
	}
	if in.Config.Tty {
		env = append(env, "TERM=xterm")
	}
	return WithHome(ReplaceEnv(env, in.Config.Env), &in.User)
}

// ReplaceEnv sets variables in an environment. A variable without "=" is taken
// out of it.
func ReplaceEnv(env, changes []string) []string {
	at := map[string]int{}
	for i, v := range env {
		name, _, _ := strings.Cut(v, "=")
		at[name] = i
	}
	env = append([]string{}, env...)
	for _, v := range changes {
		name, _, set := strings.Cut(v, "=")
		i, have := at[name]
		switch {
		case !set && have:
			env[i] = ""
		case !set:
		case have:
			env[i] = v
		default:
			at[name] = len(env)
			env = append(env, v)
		}
	}
	kept := env[:0]
	for _, v := range env {
		if v != "" {
			kept = append(kept, v)
		}
	}
	return kept
}

// WithHome adds the user's HOME where the environment has none.
func WithHome(env []string, u *User) []string {
	for _, v := range env {
		if strings.HasPrefix(v, "HOME=") && v != "HOME=" {
			return env
		}
	}
	home := u.Home
	if home == "" {
		home = "/"
	}
	return append(env, "HOME="+home)
}

func namespaces(s *specs.Spec, in *Input) error {
	h := in.HostConfig
	add := func(t specs.LinuxNamespaceType, path string) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
	}
	add(specs.MountNamespace, "")
	if !h.UTSMode.IsHost() {
		add(specs.UTSNamespace, "")
	}
	if !h.PidMode.IsHost() {
		add(specs.PIDNamespace, in.PIDNamespace)
	}
	if !h.IpcMode.IsHost() {
		add(specs.IPCNamespace, in.IPCNamespace)
	}
	if !h.NetworkMode.IsHost() {
		add(specs.NetworkNamespace, in.NetworkNamespace)
	}
	if h.CgroupnsMode.IsPrivate() {
		add(specs.CgroupNamespace, "")
	}
	return nil
}

// sysctls gives a container with its own network namespace what Docker gives:
// low ports and ping without privileges.
func sysctls(s *specs.Spec, in *Input) error {
	s.Linux.Sysctl = map[string]string{}
	if in.OwnNetwork {
		s.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
		s.Linux.Sysctl["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for key, value := range in.HostConfig.Sysctls {
		if strings.HasPrefix(key, "net.") && in.HostConfig.NetworkMode.IsHost() {
			return invalid("sysctl %q not allowed in host network namespace", key)
		}
		s.Linux.Sysctl[key] = value
	}
	return nil
}

// paths sets what of /proc and /sys is hidden or read-only.
func paths(s *specs.Spec, in *Input) error {
	if in.HostConfig.Privileged {
		return nil
	}
	for _, option := range in.HostConfig.SecurityOpt {
		if option == "systempaths=unconfined" {
			return nil
		}
	}
	s.Linux.MaskedPaths = in.HostConfig.MaskedPaths
	s.Linux.ReadonlyPaths = in.HostConfig.ReadonlyPaths
	return nil
}

// initProcess puts an init before the command.
func initProcess(s *specs.Spec, in *Input) error {
	if in.InitPath == "" || in.HostConfig.PidMode.IsHost() || in.HostConfig.PidMode.IsContainer() {
		return nil
	}
	s.Process.Args = append([]string{initInContainer, "--"}, s.Process.Args...)
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: initInContainer, Type: "bind", Source: in.InitPath, Options: []string{"bind", "ro"},
	})
	return nil
}

// MaskedPaths are hidden from containers by default.
func MaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// ReadonlyPaths are read-only in containers by default.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func clean(p string) string { return path.Clean("/" + p) }

func describe(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }
