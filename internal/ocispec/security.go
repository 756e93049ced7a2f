package ocispec

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCapabilities are what a container has unless it says otherwise.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// allCapabilities are those this process could give away. They are nobody's to
// change.
func allCapabilities() ([]string, error) {
	ownCaps.mu.Lock()
	defer ownCaps.mu.Unlock()
	if ownCaps.names != nil {
		return ownCaps.names, nil
	}
	names, err := readCapabilities()
	if err == nil {
		ownCaps.names = names
	}
	return names, err
}

// ownCaps are the capabilities that were read. They stay: what a process cannot give away
// it never can again.
var ownCaps struct {
	mu    sync.Mutex // guards names
	names []string
}

func readCapabilities() ([]string, error) {
	known, err := capability.ListSupported()
	if err != nil {
		return nil, describe("cannot list capabilities", err)
	}
	self, err := capability.NewPid2(0)
	if err != nil {
		return nil, describe("cannot read our capabilities", err)
	}
	if err := self.Load(); err != nil {
		return nil, describe("cannot read our capabilities", err)
	}
	var names []string
	for _, c := range known {
		// A machine may lack some; what root here does not have nobody gets.
		if self.Get(capability.BOUNDING, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	sort.Strings(names)
	return slices.Clip(names), nil
}

// normalizeCapability accepts a name with or without CAP_ in any case, and ALL.
func normalizeCapability(name string) (string, error) {
	upper := strings.ToUpper(name)
	if upper == "ALL" {
		return upper, nil
	}
	if !strings.HasPrefix(upper, "CAP_") {
		upper = "CAP_" + upper
	}
	for _, c := range capability.ListKnown() {
		if "CAP_"+strings.ToUpper(c.String()) == upper {
			return upper, nil
		}
	}
	return "", fmt.Errorf("unknown capability: %q", name)
}

// ValidateCapabilities checks the names of --cap-add and --cap-drop.
func ValidateCapabilities(add, drop []string) error {
	for _, list := range []struct {
		field string
		names []string
	}{{"CapAdd", add}, {"CapDrop", drop}} {
		for _, name := range list.names {
			if _, err := normalizeCapability(name); err != nil {
				return fmt.Errorf("invalid %s: %w", list.field, err)
			}
		}
	}
	return nil
}

// Capabilities computes the set a container has.
func Capabilities(add, drop []string, privileged bool) ([]string, error) {
	all, err := allCapabilities()
	if err != nil || privileged {
		return all, err
	}
	have := defaultCapabilities()
	normal := func(names []string) (list []string, everything bool) {
		for _, name := range names {
			n, _ := normalizeCapability(name)
			if n == "ALL" {
				everything = true
			} else {
				list = append(list, n)
			}
		}
		return list, everything
	}
	added, addAll := normal(add)
	dropped, dropAll := normal(drop)
	switch {
	case addAll:
		have = all
	case dropAll:
		have = nil
	}
	var set []string
	for _, c := range have {
		if !slices.Contains(dropped, c) || slices.Contains(added, c) && !addAll {
			set = append(set, c)
		}
	}
	for _, c := range added {
		if slices.Contains(set, c) {
			continue
		}
		if !slices.Contains(all, c) {
			return nil, invalid("cannot add capability %s: this machine does not have it", c)
		}
		set = append(set, c)
	}
	return set, nil
}

// securityOptions are the parsed values of --security-opt.
type securityOptions struct {
	noNewPrivileges bool
	seccomp         string // JSON, "unconfined", "builtin" or ""
	apparmor        string
	labels          []string
	writableCgroups bool
}

func parseSecurityOpt(options []string) (o securityOptions, err error) {
	for _, option := range options {
		key, value, ok := strings.Cut(option, "=")
		if !ok {
			key, value, ok = strings.Cut(option, ":")
		}
		switch key {
		case "no-new-privileges":
			o.noNewPrivileges = true
			if ok {
				if o.noNewPrivileges, err = strconv.ParseBool(value); err != nil {
					return o, fmt.Errorf("invalid --security-opt 2: %q", option)
				}
			}
			continue
		case "writable-cgroups":
			o.writableCgroups = true
			if ok {
				if o.writableCgroups, err = strconv.ParseBool(value); err != nil {
					return o, fmt.Errorf("invalid --security-opt 2: %q", option)
				}
			}
			continue
		}
		if !ok {
			return o, fmt.Errorf("invalid --security-opt 1: %q", option)
		}
		switch key {
		case "seccomp":
			o.seccomp = value
		case "apparmor":
			o.apparmor = value
		case "label":
			o.labels = append(o.labels, value)
		case "systempaths":
			if value != "unconfined" {
				return o, fmt.Errorf("invalid --security-opt 2: %q", option)
			}
		default:
			return o, fmt.Errorf("invalid --security-opt 2: %q", option)
		}
	}
	return o, nil
}

// ValidateSecurityOpt checks --security-opt as far as it can be without starting.
func ValidateSecurityOpt(options []string) error {
	o, err := parseSecurityOpt(options)
	if err != nil {
		return err
	}
	if o.apparmor != "" && o.apparmor != "unconfined" && !AppArmorEnabled() {
		return fmt.Errorf("cannot use AppArmor profile %q: this kernel does not have AppArmor", o.apparmor)
	}
	if len(o.labels) > 0 && !slices.Equal(o.labels, []string{"disable"}) && !selinuxEnabled() {
		return fmt.Errorf("cannot use label %q: this kernel does not have SELinux", strings.Join(o.labels, ","))
	}
	if o.seccomp != "" && o.seccomp != "unconfined" && o.seccomp != "builtin" {
		var profile seccomp.Seccomp
		if err := json.Unmarshal([]byte(o.seccomp), &profile); err != nil {
			return fmt.Errorf("Decoding seccomp profile failed: %w", err)
		}
	}
	return nil
}

// AppArmorProfile is the profile of a container: the one --security-opt names,
// "unconfined" for a privileged one, else the engine's default, which is "" where
// there is none.
func AppArmorProfile(host *api.HostConfig, def string) string {
	o, err := parseSecurityOpt(host.SecurityOpt)
	if err != nil {
		return "" // it was not created so
	}
	return o.appArmorProfile(host.Privileged, def)
}

func (o *securityOptions) appArmorProfile(privileged bool, def string) string {
	switch {
	case o.apparmor != "":
		return o.apparmor
	case privileged:
		return "unconfined"
	}
	return def
}

// AppArmorEnabled tells whether the kernel confines programs by AppArmor.
func AppArmorEnabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(b) > 0 && b[0] == 'Y'
}

func selinuxEnabled() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// privileges sets capabilities, seccomp and the labels of security modules.
func privileges(s *specs.Spec, in *Input) error {
	o, err := parseSecurityOpt(in.HostConfig.SecurityOpt)
	if err != nil {
		return invalid("%w", err)
	}
	caps, err := Capabilities(in.HostConfig.CapAdd, in.HostConfig.CapDrop, in.HostConfig.Privileged)
	if err != nil {
		return err
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	s.Process.NoNewPrivileges = o.noNewPrivileges
	if profile := o.appArmorProfile(in.HostConfig.Privileged, in.AppArmorProfile); profile != "unconfined" {
		s.Process.ApparmorProfile = profile
	}
	if label := selinuxLabel(o.labels); label != "" {
		s.Process.SelinuxLabel = label
	}
	if o.writableCgroups {
		makeWritable(s, "/sys/fs/cgroup")
	}
	return seccompProfile(s, in, o.seccomp)
}

// selinuxLabel joins "user:…", "role:…", "type:…", "level:…" into a label.
func selinuxLabel(options []string) string {
	parts := map[string]string{"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}
	given := false
	for _, o := range options {
		key, value, ok := strings.Cut(o, ":")
		if _, known := parts[key]; ok && known {
			parts[key], given = value, true
		}
	}
	if !given {
		return ""
	}
	return parts["user"] + ":" + parts["role"] + ":" + parts["type"] + ":" + parts["level"]
}

func makeWritable(s *specs.Spec, destination string) {
	for i := range s.Mounts {
		if s.Mounts[i].Destination == destination {
			s.Mounts[i].Options = slices.DeleteFunc(slices.Clone(s.Mounts[i].Options), func(o string) bool { return o == "ro" })
		}
	}
}
