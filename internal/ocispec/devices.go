package ocispec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// devices makes the device nodes a user asked for and the list of devices the
// container's processes may use. The nodes every container has are the
// runtime's to make.
func devices(s *specs.Spec, in *Input) error {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	if in.HostConfig.Privileged {
		nodes, err := hostDevices("/dev", "/dev")
		if err != nil {
			return err
		}
		for _, d := range nodes {
			// A terminal of the container's own goes there.
			if d.Path != "/dev/console" {
				s.Linux.Devices = append(s.Linux.Devices, d)
			}
		}
		rules = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	} else {
		rules = append(rules, standardDevices()...)
	}
	for _, d := range in.HostConfig.Devices {
		nodes, access, err := mappedDevices(&d)
		if err != nil {
			return err
		}
		for _, node := range nodes {
			s.Linux.Devices = append(s.Linux.Devices, node)
			rules = append(rules, rule(node.Type, node.Major, node.Minor, access))
		}
	}
	for _, text := range in.HostConfig.DeviceCgroupRules {
		r, err := parseDeviceRule(text)
		if err != nil {
			return err
		}
		rules = append(rules, r)
	}
	s.Linux.Resources = &specs.LinuxResources{Devices: rules}
	return nil
}

func rule(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

// standardDevices may be used in every container: all nodes may be made, and
// null, zero, full, random, urandom, tty, console, ptmx, pts and net/tun used.
func standardDevices() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		rule("c", -1, -1, "m"), rule("b", -1, -1, "m"),
		rule("c", 1, 3, "rwm"), rule("c", 1, 5, "rwm"), rule("c", 1, 7, "rwm"), rule("c", 1, 8, "rwm"), rule("c", 1, 9, "rwm"),
		rule("c", 5, 0, "rwm"), rule("c", 5, 1, "rwm"), rule("c", 5, 2, "rwm"), rule("c", 136, -1, "rwm"),
		rule("c", 10, 200, "rwm"),
	}
}

// mappedDevices reads --device: a node, or a directory of nodes.
func mappedDevices(d *api.DeviceMapping) (nodes []specs.LinuxDevice, access string, err error) {
	access = d.CgroupPermissions
	if access == "" {
		access = "rwm"
	}
	if strings.Trim(access, "rwm") != "" {
		return nil, "", invalid("invalid device mode: %s", access)
	}
	target := d.PathInContainer
	if target == "" {
		target = d.PathOnHost
	}
	source, err := filepath.EvalSymlinks(d.PathOnHost)
	if err != nil {
		return nil, "", gatherError(d.PathOnHost, err)
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, "", gatherError(d.PathOnHost, err)
	}
	if info.IsDir() {
		nodes, err = hostDevices(source, target)
	} else {
		var node *specs.LinuxDevice
		if node, err = hostDevice(source, target); err == nil && node == nil {
			err = errors.New("not a device node")
		} else if err == nil {
			nodes = []specs.LinuxDevice{*node}
		}
	}
	if err == nil && len(nodes) == 0 {
		err = errors.New("not a device node")
	}
	if err != nil {
		return nil, "", gatherError(d.PathOnHost, err)
	}
	return nodes, access, nil
}

func gatherError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("no such file or directory")
	}
	return invalid("error gathering device information while adding custom device %q: %w", path, err)
}

// hostDevice describes a node of the host; nil when the path is something else.
func hostDevice(source, target string) (*specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Lstat(source, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: source, Err: err}
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return nil, nil
	}
	mode := fs.FileMode(st.Mode & 0o7777)
	uid, gid := st.Uid, st.Gid
	return &specs.LinuxDevice{
		Path: target, Type: kind, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))),
		FileMode: &mode, UID: &uid, GID: &gid,
	}, nil
}

// hostDevices lists the nodes below a directory. Other file systems mounted
// below /dev hold no devices of interest.
func hostDevices(source, target string) ([]specs.LinuxDevice, error) {
	entries, err := os.ReadDir(source)
	if err != nil {
		return nil, err
	}
	var list []specs.LinuxDevice
	for _, e := range entries {
		from, to := filepath.Join(source, e.Name()), filepath.Join(target, e.Name())
		if e.IsDir() {
			switch e.Name() {
			case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
				continue
			}
			below, err := hostDevices(from, to)
			if err != nil && !errors.Is(err, fs.ErrPermission) {
				return nil, err
			}
			list = append(list, below...)
			continue
		}
		node, err := hostDevice(from, to)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if node != nil {
			list = append(list, *node)
		}
	}
	return list, nil
}

// parseDeviceRule reads "c 42:* rwm".
func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	bad := invalid("invalid device cgroup rule format: '%s'", text)
	fields := strings.Fields(text)
	if len(fields) != 3 || !strings.Contains("abc", fields[0]) || len(fields[0]) != 1 ||
		fields[2] == "" || strings.Trim(fields[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	numbers := strings.Split(fields[1], ":")
	if len(numbers) != 2 {
		return specs.LinuxDeviceCgroup{}, bad
	}
	var parsed [2]int64
	for i, n := range numbers {
		parsed[i] = -1
		if n != "*" {
			v, err := strconv.ParseUint(n, 10, 31)
			if err != nil {
				return specs.LinuxDeviceCgroup{}, bad
			}
			parsed[i] = int64(v)
		}
	}
	return rule(fields[0], parsed[0], parsed[1], fields[2]), nil
}

// ValidateDeviceRule checks a --device-cgroup-rule.
func ValidateDeviceRule(text string) error {
	_, err := parseDeviceRule(text)
	return err
}
