package ocispec

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
	imount "github.com/gantry-containers/gantry/internal/mount"
)

func invalid(format string, args ...any) error { return errs.InvalidArgument(format, args...) }

// mounts makes the list in the order it is mounted: what every container has,
// without what the user mounts something else over, then the user's, parents
// first.
func mounts(s *specs.Spec, in *Input) error {
	own, err := userMounts(in)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, m := range own {
		taken[m.Destination] = true
	}
	for _, m := range append(systemMounts(in), fileMounts(in)...) {
		// A user who mounts over /dev wants nothing of ours below it either.
		if !taken[m.Destination] && !(taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/")) {
			s.Mounts = append(s.Mounts, m)
		}
	}
	s.Mounts = append(s.Mounts, own...)
	for _, m := range in.Mounts {
		adaptPropagation(s, &m)
	}
	return nil
}

func systemMounts(in *Input) []specs.Mount {
	privileged := in.HostConfig.Privileged
	access := "ro"
	if privileged {
		access = "rw"
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{access, "nosuid", "noexec", "nodev", "relatime"}},
	}
	if in.HostConfig.IpcMode.IsHost() {
		for _, dir := range []string{"/dev/mqueue", "/dev/shm"} {
			// Not every host has them, and a bind of nothing is no mount.
			if _, err := os.Stat(dir); err == nil {
				list = append(list, hostDir(dir))
			}
		}
		return list
	}
	list = append(list, specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
	switch {
	case in.ShmPath != "":
		list = append(list, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.ShmPath, Options: []string{"rbind", "rprivate"}})
	case !in.HostConfig.IpcMode.IsNone():
		list = append(list, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(in.HostConfig.ShmSize, 10)}})
	}
	return list
}

func hostDir(path string) specs.Mount {
	return specs.Mount{Destination: path, Type: "bind", Source: path, Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}}
}

// fileMounts are the files the engine writes for the container.
func fileMounts(in *Input) []specs.Mount {
	var list []specs.Mount
	for _, f := range []struct{ destination, source string }{
		{"/etc/resolv.conf", in.ResolvConfPath}, {"/etc/hostname", in.HostnamePath}, {"/etc/hosts", in.HostsPath},
	} {
		if f.source != "" {
			options := []string{"rbind", "rprivate"}
			if in.HostConfig.ReadonlyRootfs {
				options = append(options, "ro")
			}
			list = append(list, specs.Mount{Destination: f.destination, Type: "bind", Source: f.source, Options: options})
		}
	}
	return list
}

func userMounts(in *Input) ([]specs.Mount, error) {
	var list []specs.Mount
	for i := range in.Mounts {
		m, err := userMount(&in.Mounts[i])
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	for destination, options := range in.HostConfig.Tmpfs {
		list = append(list, tmpfs(clean(destination), splitOptions(options)))
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i].Destination, list[j].Destination
		if da, db := strings.Count(a, "/"), strings.Count(b, "/"); da != db {
			return da < db
		}
		return a < b
	})
	return list, nil
}

func splitOptions(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func tmpfs(destination string, options []string) specs.Mount {
	return specs.Mount{Destination: destination, Type: "tmpfs", Source: "tmpfs",
		Options: append([]string{"noexec", "nosuid", "nodev"}, options...)}
}

func userMount(m *Mount) (specs.Mount, error) {
	switch m.Type {
	case mount.TypeTmpfs:
		return tmpfs(m.Destination, tmpfsOptions(m)), nil
	case mount.TypeImage:
		return imageMount(m)
	}
	out := specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source}
	kind := "rbind"
	if m.Bind.NonRecursive {
		kind = "bind"
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = mount.PropagationRPrivate
	}
	out.Options = []string{kind, string(propagation)}
	if !m.RW {
		// Without the r only the mount itself is read-only, and what is mounted
		// below it on the host can still be written.
		if m.Bind.NonRecursive || m.Bind.ReadOnlyNonRecursive {
			out.Options = append(out.Options, "ro")
		} else {
			out.Options = append(out.Options, "rro")
		}
	}
	if m.Bind.ReadOnlyForceRecursive && propagation != mount.PropagationRPrivate {
		return out, invalid("mount %s: recursive read-only needs the propagation rprivate", m.Destination)
	}
	return out, nil
}

func tmpfsOptions(m *Mount) []string {
	var options []string
	if !m.RW {
		options = append(options, "ro")
	}
	if m.Tmpfs.SizeBytes != 0 {
		options = append(options, "size="+strconv.FormatInt(m.Tmpfs.SizeBytes, 10))
	}
	if m.Tmpfs.Mode != 0 {
		options = append(options, fmt.Sprintf("mode=%o", m.Tmpfs.Mode))
	}
	for _, o := range m.Tmpfs.Options {
		options = append(options, strings.Join(o, "="))
	}
	return options
}

// imageMount mounts an image where the image is one mount. The bind of a single
// layer and an overlay of several are both of that kind.
func imageMount(m *Mount) (specs.Mount, error) {
	if len(m.Stack) != 1 {
		return specs.Mount{}, fmt.Errorf("cannot mount an image on %s: its file system takes %d mounts", m.Destination, len(m.Stack))
	}
	one := m.Stack[0]
	if m.Subpath != "" {
		one.Options = append(append([]string{}, one.Options...), imount.Subdir+m.Subpath)
	}
	return specs.Mount{Destination: m.Destination, Type: one.Type, Source: one.Source, Options: append(append([]string{}, one.Options...), "ro")}, nil
}

// adaptPropagation lets mounts travel where a user asked for it: the root must
// then not be private.
func adaptPropagation(s *specs.Spec, m *Mount) {
	switch m.Propagation {
	case mount.PropagationShared, mount.PropagationRShared:
		s.Linux.RootfsPropagation = "shared"
	case mount.PropagationSlave, mount.PropagationRSlave:
		if s.Linux.RootfsPropagation != "shared" {
			s.Linux.RootfsPropagation = "rslave"
		}
	}
}

// ValidateTmpfs checks a tmpfs as --tmpfs takes it: its place, and its options,
// which are flags of mount(8) and the settings of tmpfs(5) that a container may
// choose.
func ValidateTmpfs(destination, options string) error {
	if !strings.HasPrefix(destination, "/") {
		return invalid("invalid mount path: '%s' mount path must be absolute", destination)
	}
	if clean(destination) == "/" {
		return invalid("invalid specification: destination can't be '/'")
	}
	for _, option := range splitOptions(options) {
		name, _, setting := strings.Cut(option, "=")
		switch name {
		case "mode", "uid", "gid", "size", "nr_blocks", "nr_inodes", "mpol":
			if setting {
				continue
			}
		case "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync",
			"remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
			"strictatime", "nostrictatime", "bind", "rbind", "private", "rprivate", "shared", "rshared",
			"slave", "rslave", "unbindable", "runbindable":
			if !setting {
				continue
			}
		}
		return invalid("invalid tmpfs option [%q]", option)
	}
	return nil
}
