package container

import (
	"path"
	"strings"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/ocispec"
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
	if h.Privileged {
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	} else {
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
	if driver, options := m.logConfig(h); h.LogConfig.Type == "" {
		h.LogConfig = api.LogConfig{Type: driver, Config: options}
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
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

// logConfig is the log driver of a container and its options: the engine's
// options hold only for the engine's driver.
func (m *Manager) logConfig(h *api.HostConfig) (string, map[string]string) {
	d := &m.opts.Defaults
	if h.LogConfig.Type == "" {
		return d.LogDriver, d.LogOpts
	}
	if h.LogConfig.Type == d.LogDriver && len(h.LogConfig.Config) == 0 {
		return d.LogDriver, d.LogOpts
	}
	return h.LogConfig.Type, h.LogConfig.Config
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
	driver, options := m.logConfig(h)
	if err := logs.Validate(driver, options); err != nil {
		return err
	}
	if _, err := m.runtime(h.Runtime); err != nil {
		return err
	}
	return m.validateNamespaces(h)
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
	if h.NetworkMode.IsContainer() && (len(h.PortBindings) > 0 || h.PublishAllPorts) {
		return errs.InvalidArgument("conflicting options: port publishing and the container type network mode")
	}
	return nil
}

func parseSize(s string) (int64, error) { return units.RAMInBytes(s) }
