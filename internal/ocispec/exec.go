package ocispec

import (
	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ExecInput is a further command for a running container.
type ExecInput struct {
	Args, Env      []string
	WorkingDir     string
	Tty            bool
	Privileged     bool
	User           User
	Hostname       string
	Config         *api.Config
	HostConfig     *api.HostConfig
	SeccompProfile string
	// AppArmorProfile is for who asks for none and is not privileged.
	AppArmorProfile string
}

// Exec makes the process of an exec: the container's environment, limits and
// privileges, unless the exec is privileged.
func Exec(in *ExecInput) (*specs.Process, error) {
	caps, err := Capabilities(in.HostConfig.CapAdd, in.HostConfig.CapDrop, in.HostConfig.Privileged || in.Privileged)
	if err != nil {
		return nil, err
	}
	o, err := parseSecurityOpt(in.HostConfig.SecurityOpt)
	if err != nil {
		return nil, invalid("%w", err)
	}
	config := *in.Config
	config.Tty = in.Tty
	build := &Input{Config: &config, HostConfig: in.HostConfig, User: in.User, Args: in.Args, Hostname: in.Hostname}
	s := &specs.Spec{}
	if err := process(s, build); err != nil {
		return nil, err
	}
	p := s.Process
	p.Env = ReplaceEnv(p.Env, in.Env)
	p.ConsoleSize = nil
	if in.WorkingDir != "" {
		p.Cwd = in.WorkingDir
	}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	p.NoNewPrivileges = o.noNewPrivileges
	if profile := o.appArmorProfile(in.HostConfig.Privileged, in.AppArmorProfile); profile != "unconfined" {
		p.ApparmorProfile = profile
	}
	return p, nil
}
