package container

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/ocispec"
	"github.com/gantry-containers/gantry/internal/ocispec/resolv"
)

// applyDefaults fills in what the engine decides where the user did not, and
// turns the names of joined containers into IDs, which survive a rename.
func (m *Manager) applyDefaults(h *api.HostConfig) {
	d := &m.opts.Defaults
	if h.NetworkMode == "" || h.NetworkMode == "default" {
		h.NetworkMode = "bridge"
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.ShmSize == 0 {
		h.ShmSize = d.ShmSize
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = d.IPCMode
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = d.CgroupnsMode
		if h.CgroupnsMode.IsEmpty() {
			h.CgroupnsMode = api.CgroupnsModePrivate
		}
		if h.Privileged && cgroup.Detect() != cgroup.Unified {
			h.CgroupnsMode = api.CgroupnsModeHost
		}
	}
	if h.OomKillDisable == nil {
		h.OomKillDisable = new(bool)
	}
	if h.PidsLimit != nil && *h.PidsLimit == 0 {
		h.PidsLimit = nil
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = api.RestartPolicyDisabled
	}
	if h.Runtime == "" {
		h.Runtime = d.Runtime
	}
	if h.Privileged || h.PidMode.IsHost() || h.IpcMode.IsHost() {
		// Only a label that is said to be off shows that it is: Docker's clients
		// look for it, with or without SELinux.
		if !slices.Contains(h.SecurityOpt, "label=disable") {
			h.SecurityOpt = append(h.SecurityOpt, "label=disable")
		}
	}
	if !h.Privileged {
		if h.MaskedPaths == nil {
			h.MaskedPaths = ocispec.MaskedPaths()
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = ocispec.ReadonlyPaths()
		}
	}
	h.PidMode = api.PidMode(m.joinByID(string(h.PidMode)))
	h.IpcMode = api.IpcMode(m.joinByID(string(h.IpcMode)))
	h.NetworkMode = api.NetworkMode(m.joinByID(string(h.NetworkMode)))
	h.LogConfig = m.logConfig(h.LogConfig)
}

func (m *Manager) joinByID(mode string) string {
	name, ok := strings.CutPrefix(mode, "container:")
	if !ok {
		return mode
	}
	if c, err := m.lookup(name); err == nil {
		return "container:" + c.copy().ID
	}
	return mode
}

// logConfig completes the log driver of a container and its options: the
// engine's options hold only for the engine's driver.
func (m *Manager) logConfig(c api.LogConfig) api.LogConfig {
	d := &m.opts.Defaults
	if c.Type == "" {
		c.Type = d.LogDriver
	}
	merged := map[string]string{}
	if c.Type == d.LogDriver {
		maps.Copy(merged, d.LogOpts)
	}
	maps.Copy(merged, c.Config)
	return api.LogConfig{Type: c.Type, Config: merged}
}

// validate refuses what can never work, and returns warnings about what this
// kernel cannot do and the container will do without.
func (m *Manager) validate(o *CreateOptions) (warnings []string, err error) {
	if err := validateConfig(o.Config); err != nil {
		return nil, err
	}
	if err := m.validateHostConfig(o.HostConfig); err != nil {
		return nil, err
	}
	if err := validateNetwork(o); err != nil {
		return nil, err
	}
	warnings, err = m.validateResources(&o.HostConfig.Resources, false)
	if err != nil {
		return warnings, err
	}
	if o.HostConfig.NetworkMode.IsHost() && len(o.HostConfig.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	return warnings, nil
}

func validateConfig(c *api.Config) error {
	if c.WorkingDir != "" {
		if !path.IsAbs(c.WorkingDir) {
			return errs.InvalidArgument("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
		}
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return errs.InvalidArgument("%w", err)
		}
	}
	for _, v := range c.Env {
		if name, _, _ := strings.Cut(v, "="); name == "" {
			return errs.InvalidArgument("invalid environment variable: %s", v)
		}
		if strings.ContainsRune(v, 0) {
			return errs.InvalidArgument("invalid environment variable: it contains a NUL byte")
		}
	}
	for _, arg := range append(append([]string{}, c.Entrypoint...), c.Cmd...) {
		if strings.ContainsRune(arg, 0) {
			return errs.InvalidArgument("invalid command: it contains a NUL byte")
		}
	}
	return validateHealthcheck(c.Healthcheck)
}

func validateHealthcheck(h *api.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value int64
	}{{"Interval", int64(h.Interval)}, {"Timeout", int64(h.Timeout)}, {"StartPeriod", int64(h.StartPeriod)}, {"StartInterval", int64(h.StartInterval)}} {
		if d.value != 0 && d.value < int64(api.MinimumDuration) {
			return errs.InvalidArgument("%s in Healthcheck cannot be less than %s", d.name, api.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return errs.InvalidArgument("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) > 0 {
		switch h.Test[0] {
		case "NONE", "CMD", "CMD-SHELL":
		default:
			return errs.InvalidArgument("Unknown healthcheck type '%s' (expected 'CMD', 'CMD-SHELL' or 'NONE')", h.Test[0])
		}
	}
	return nil
}

func (m *Manager) validateHostConfig(h *api.HostConfig) error {
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return errs.InvalidArgument("can't create 'AutoRemove' container with restart policy")
	}
	if err := api.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return errs.InvalidArgument("%w", err)
	}
	if err := ocispec.ValidateCapabilities(h.CapAdd, h.CapDrop); err != nil {
		return errs.InvalidArgument("%w", err)
	}
	if err := ocispec.ValidateSecurityOpt(h.SecurityOpt); err != nil {
		return errs.InvalidArgument("%w", err)
	}
	if !h.Isolation.IsDefault() {
		return errs.InvalidArgument("invalid isolation '%s' on linux", h.Isolation)
	}
	for key := range h.Annotations {
		if key == "" {
			return errs.InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
		}
	}
	if err := logs.Validate(h.LogConfig.Type, h.LogConfig.Config); err != nil {
		return err
	}
	if _, err := m.runtime(h.Runtime); err != nil {
		return err
	}
	for destination, options := range h.Tmpfs {
		if err := ocispec.ValidateTmpfs(destination, options); err != nil {
			return err
		}
	}
	for key := range h.StorageOpt {
		if key != "size" {
			return errs.InvalidArgument("Unknown option %s", key)
		}
	}
	if err := validateAddresses(h); err != nil {
		return err
	}
	if err := m.validateLinks(h); err != nil {
		return err
	}
	return m.validateNamespaces(h)
}

// validateAddresses checks what would otherwise be found when it starts.
func validateAddresses(h *api.HostConfig) error {
	for _, extra := range h.ExtraHosts {
		if _, _, err := resolv.SplitExtraHost(extra); err != nil {
			return errs.InvalidArgument("%w", err)
		}
	}
	for _, bindings := range h.PortBindings {
		for _, b := range bindings {
			if b.HostPort == "" {
				continue
			}
			if _, err := network.ParsePortRange(b.HostPort); err != nil {
				return errs.InvalidArgument("invalid port specification: %q", b.HostPort)
			}
		}
	}
	return nil
}

func (m *Manager) validateNamespaces(h *api.HostConfig) error {
	switch {
	case !h.IpcMode.Valid():
		return errs.InvalidArgument("invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return errs.InvalidArgument("invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return errs.InvalidArgument("invalid UTS mode: %v", h.UTSMode)
	case !h.UsernsMode.Valid():
		return errs.InvalidArgument("invalid user namespace mode: %v", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return errs.InvalidArgument("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case h.ShmSize < 0:
		return errs.InvalidArgument("SHM size can not be less than 0")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return errs.InvalidArgument("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	return nil
}

// validateNetwork refuses what contradicts the way the container is connected.
func validateNetwork(o *CreateOptions) error {
	c, h := o.Config, o.HostConfig
	conflict := func(what string) error { return errs.InvalidArgument("conflicting options: %s", what) }
	joined := h.NetworkMode.IsContainer()
	switch {
	case h.NetworkMode == "container:":
		return errs.InvalidArgument("invalid network mode: invalid container format container:<name|id>")
	case joined && c.Hostname != "":
		return conflict("hostname and the network mode")
	case joined && len(h.Links) > 0:
		return conflict("container type network can't be used with links. This would result in undefined behavior")
	case joined && len(h.DNS) > 0:
		return conflict("dns and the network mode")
	case joined && len(h.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case joined && (len(h.PortBindings) > 0 || h.PublishAllPorts):
		return conflict("port publishing and the container type network mode")
	case joined && len(c.ExposedPorts) > 0:
		return conflict("port exposing and the container type network mode")
	case h.UTSMode.IsHost() && c.Hostname != "":
		return conflict("hostname and the UTS mode")
	case h.NetworkMode.IsHost() && len(h.Links) > 0:
		return conflict("host type networking can't be used with links. This would result in undefined behavior")
	}
	if o.NetworkingConfig == nil {
		return nil
	}
	if err := validateCompany(h.NetworkMode, o.NetworkingConfig.EndpointsConfig); err != nil {
		return err
	}
	if h.NetworkMode.IsUserDefined() {
		return nil
	}
	if ep := o.NetworkingConfig.EndpointsConfig[string(h.NetworkMode)]; ep != nil {
		if a := ep.IPAMConfig; a != nil && (a.IPv4Address.IsValid() || a.IPv6Address.IsValid()) {
			return errs.InvalidArgument("invalid config for network %s: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only", h.NetworkMode)
		}
		if len(ep.Aliases) > 0 {
			return errs.InvalidArgument("invalid config for network %s: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks", h.NetworkMode)
		}
	}
	return nil
}

// validateCompany refuses networks beside one that cannot have any.
func validateCompany(mode api.NetworkMode, endpoints map[string]*network.EndpointSettings) error {
	modes := []api.NetworkMode{mode}
	for name := range endpoints {
		if name != string(mode) {
			modes = append(modes, api.NetworkMode(name))
		}
	}
	for _, one := range modes {
		switch {
		case len(modes) == 1:
		case one.IsHost() || one.IsContainer():
			return errs.InvalidArgument("container sharing network namespace with another container or host cannot be connected to any other network")
		case one.IsNone():
			return errs.InvalidArgument("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

func parseSize(s string) (int64, error) { return units.RAMInBytes(s) }
