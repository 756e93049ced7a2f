package server

import (
	"bytes"
	"fmt"
	"sort"
	"strings"

	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// endpointSysctls is the driver option that carries the sysctls of one endpoint.
const endpointSysctls = "com.docker.network.endpoint.sysctls"

// adaptCreate makes of what a client of an older version sent what one of the
// newest would have: fields it cannot know are ignored, defaults are those of
// its time. It returns warnings for the client.
func adaptCreate(o *container.CreateOptions, legacyMAC network.HardwareAddr, v apiVersion) ([]string, error) {
	defaultNetwork(o)
	if err := adaptOld(o, v); err != nil {
		return nil, err
	}
	if err := adaptMounts(o.HostConfig, v); err != nil {
		return nil, err
	}
	var warnings []string
	if w := warnVolumeDriver(o.HostConfig, v); w != "" {
		warnings = append(warnings, w)
	}
	for _, adapt := range []func() (string, error){
		func() (string, error) { return adaptMAC(o, legacyMAC, v) },
		func() (string, error) { return adaptSysctls(o, v) },
	} {
		w, err := adapt()
		if err != nil {
			return nil, err
		}
		if w != "" {
			warnings = append(warnings, w)
		}
	}
	if p := o.HostConfig.PidsLimit; p != nil && *p <= 0 {
		o.HostConfig.PidsLimit = nil // 0 and anything negative mean unlimited
	}
	o.HostConfig.Umask = nil // came with API 1.56
	return warnings, nil
}

// defaultNetwork gives the network called "default" its name.
func defaultNetwork(o *container.CreateOptions) {
	if m := o.HostConfig.NetworkMode; m != "" && !m.IsDefault() {
		return
	}
	o.HostConfig.NetworkMode = network.NetworkBridge
	nets := o.NetworkingConfig.EndpointsConfig
	if ep, ok := nets[network.NetworkDefault]; ok {
		nets[network.NetworkBridge] = ep
		delete(nets, network.NetworkDefault)
	}
}

func adaptOld(o *container.CreateOptions, v apiVersion) error {
	host, nets := o.HostConfig, o.NetworkingConfig.EndpointsConfig
	if v < 1_25 {
		host.AutoRemove = false // was the client's to do
	}
	if v < 1_40 && host.IpcMode.IsEmpty() {
		host.IpcMode = ctypes.IPCModeShareable
	}
	if v < 1_41 && host.CgroupnsMode.IsEmpty() && cgroup.Detect() != cgroup.Unified {
		host.CgroupnsMode = ctypes.CgroupnsModeHost
	}
	if v < 1_42 {
		host.ConsoleSize = [2]uint{}
	}
	if v < 1_43 {
		host.Annotations = nil
	}
	o.DefaultReadOnlyNonRecursive = v < 1_44
	if v < 1_44 && o.Config.Healthcheck != nil {
		o.Config.Healthcheck.StartInterval = 0
	}
	if v < 1_44 && len(nets) > 1 {
		names := make([]string, 0, len(nets))
		for name := range nets {
			names = append(names, name)
		}
		sort.Strings(names)
		return errs.InvalidArgument("Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
	}
	if v < 1_48 {
		for _, ep := range nets {
			ep.GwPriority = 0
		}
	}
	return nil
}

func adaptMounts(host *ctypes.HostConfig, v apiVersion) error {
	for i := range host.Mounts {
		m := &host.Mounts[i]
		if v < 1_42 {
			ignoreForeignOptions(m)
		} else if err := refuseForeignOptions(m); err != nil {
			return err
		}
		if err := adaptMount(m, v); err != nil {
			return err
		}
	}
	return nil
}

func adaptMount(m *mount.Mount, v apiVersion) error {
	if b := m.BindOptions; b != nil {
		b.NonRecursive = b.NonRecursive && v >= 1_40
		b.CreateMountpoint = b.CreateMountpoint && v >= 1_42
		if m.Type == mount.TypeBind && b.ReadOnlyForceRecursive && v < 1_44 {
			return errs.InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
		}
	}
	if m.Type == mount.TypeBind && m.ReadOnly && v < 1_44 {
		// A read-only mount did not make read-only what is mounted below it.
		if m.BindOptions == nil {
			m.BindOptions = &mount.BindOptions{}
		}
		m.BindOptions.ReadOnlyNonRecursive = true
	}
	if m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" && v < 1_45 {
		return errs.InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
	}
	if m.Type == mount.TypeImage && v < 1_48 {
		return errs.InvalidArgument(`Mount type "Image" needs API v1.48 or newer`)
	}
	return nil
}

// ignoreForeignOptions drops options that are not for the type of the mount,
// which nobody checked before API 1.42.
func ignoreForeignOptions(m *mount.Mount) {
	if m.Type != mount.TypeVolume {
		m.VolumeOptions = nil
	}
	if m.Type != mount.TypeTmpfs {
		m.TmpfsOptions = nil
	}
}

func refuseForeignOptions(m *mount.Mount) error {
	switch {
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return errs.InvalidArgument("VolumeOptions must not be specified on mount type %q", m.Type)
	case m.BindOptions != nil && m.Type != mount.TypeBind:
		return errs.InvalidArgument("BindOptions must not be specified on mount type %q", m.Type)
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return errs.InvalidArgument("TmpfsOptions must not be specified on mount type %q", m.Type)
	}
	return nil
}

func warnVolumeDriver(host *ctypes.HostConfig, v apiVersion) string {
	if host.VolumeDriver == "" || v < 1_48 {
		return ""
	}
	for _, m := range host.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		if o := m.VolumeOptions; o == nil || o.DriverConfig == nil || o.DriverConfig.Name == "" {
			return "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
		}
	}
	return ""
}

// adaptMAC moves the address a container had as a whole before API 1.44 to the
// endpoint of its network.
func adaptMAC(o *container.CreateOptions, mac network.HardwareAddr, v apiVersion) (string, error) {
	mode := o.HostConfig.NetworkMode
	attached := mode.IsBridge() || mode.IsUserDefined()
	if v < 1_44 {
		if len(mac) == 0 {
			for _, ep := range o.NetworkingConfig.EndpointsConfig {
				ep.MacAddress = nil
			}
			return "", nil
		}
		if !attached {
			return "", errs.InvalidArgument("conflicting options: mac-address and the network mode")
		}
	}
	if len(mac) == 0 {
		return "", nil
	}
	const warning = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
	if !attached {
		return warning, nil
	}
	ep, err := mainEndpoint(o, v)
	if err != nil {
		return "", fmt.Errorf("unable to migrate container-wide MAC address to a specific network: %w", err)
	}
	if v >= 1_44 && len(ep.MacAddress) != 0 && !bytes.Equal(ep.MacAddress, mac) {
		return "", errs.InvalidArgument("the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	ep.MacAddress = mac
	if v < 1_44 {
		return "", nil
	}
	return warning, nil
}

// adaptSysctls moves sysctls that name eth0, which can only be set once the
// interface is there, to the endpoint that becomes it.
func adaptSysctls(o *container.CreateOptions, v apiVersion) (string, error) {
	if !o.HostConfig.NetworkMode.IsPrivate() {
		return "", nil
	}
	var moved, settings []string
	for _, key := range sortedKeys(o.HostConfig.Sysctls) {
		part := strings.SplitN(key, ".", 5)
		if len(part) != 5 || part[0] != "net" || !strings.HasPrefix(part[3], "eth") {
			continue
		}
		if v >= 1_48 {
			return "", errs.InvalidArgument("interface specific sysctl setting %q must be supplied using driver option '%s'", key, endpointSysctls)
		}
		if part[3] != "eth0" {
			return "", errs.InvalidArgument("unable to determine network endpoint for sysctl %s, use driver option '%s' to set per-interface sysctls", key, endpointSysctls)
		}
		moved = append(moved, key)
		settings = append(settings, fmt.Sprintf("net.%s.%s.IFNAME.%s=%s", part[1], part[2], part[4], o.HostConfig.Sysctls[key]))
	}
	if len(moved) == 0 {
		return "", nil
	}
	ep, err := mainEndpoint(o, v)
	if err != nil {
		return "", fmt.Errorf("unable to find a network for sysctl %s: %w", moved[0], err)
	}
	option := strings.Join(settings, ",")
	warning := fmt.Sprintf("Migrated sysctl %q to DriverOpts{%q:%q}.", strings.Join(moved, ","), endpointSysctls, option)
	if ep.DriverOpts == nil {
		ep.DriverOpts = map[string]string{}
	}
	if own := ep.DriverOpts[endpointSysctls]; own != "" {
		option += "," + own // those of the endpoint itself win
	}
	ep.DriverOpts[endpointSysctls] = option
	for _, key := range moved {
		delete(o.HostConfig.Sysctls, key)
	}
	return warning, nil
}

// mainEndpoint finds or makes the settings for the network the mode names.
// Where there are others, a new one under this name might be a second one for
// the same network, so that is refused.
func mainEndpoint(o *container.CreateOptions, v apiVersion) (*network.EndpointSettings, error) {
	name, nets := o.HostConfig.NetworkMode.NetworkName(), o.NetworkingConfig.EndpointsConfig
	if ep, ok := nets[name]; ok {
		return ep, nil
	}
	if len(nets) == 0 {
		nets[name] = &network.EndpointSettings{}
		return nets[name], nil
	}
	if v < 1_44 {
		for _, ep := range nets { // there is just one
			return ep, nil
		}
	}
	return nil, errs.InvalidArgument("HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
