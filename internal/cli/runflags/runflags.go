// Package runflags defines the flags that describe a container, as `run` and
// `create` have them, and turns them into the API's create request.
//
// It owns their syntax, their validation and Docker's wording of it. It must
// not talk to an engine; it reads the files and the environment the flags name.
package runflags

import (
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// Flags holds what the command line said, in groups by noun.
type Flags struct {
	set       *pflag.FlagSet
	process   process
	resources resources
	devices   devices
	security  security
	network   networkFlags
	ports     ports
	mounts    mounts
	health    health
	logging   logging
	lifecycle lifecycle
}

// Container is everything a create request says.
type Container struct {
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
}

// Add defines the flags on fs.
func Add(fs *pflag.FlagSet) *Flags {
	f := &Flags{set: fs}
	f.process.add(fs)
	f.resources.add(fs)
	f.devices.add(fs)
	f.security.add(fs)
	f.network.add(fs)
	f.ports.add(fs)
	f.mounts.add(fs)
	f.health.add(fs)
	f.logging.add(fs)
	f.lifecycle.add(fs)
	return f
}

// CIDFile is the file the container's ID is to be written to, or empty.
func (f *Flags) CIDFile() string { return f.lifecycle.cidfile }

// Attaches says that -a was given.
func (f *Flags) Attaches() bool { return len(f.process.attach.values) > 0 }

// AddEnv puts variables in front of those the flags set, which win.
func (f *Flags) AddEnv(env []string) {
	f.process.env.values = append(slices.Clone(env), f.process.env.values...)
}

// EnvNames are the names of the variables -e sets.
func (f *Flags) EnvNames() map[string]bool {
	names := map[string]bool{}
	for _, v := range f.process.env.values {
		names[key(v)] = true
	}
	return names
}

// Container validates the flags together and builds the request for image and
// the command args.
func (f *Flags) Container(image string, args []string) (*Container, error) {
	c := &Container{
		Config:     &container.Config{Image: image},
		HostConfig: &container.HostConfig{},
		Networking: &network.NetworkingConfig{},
	}
	if len(args) > 0 {
		c.Config.Cmd = args
	}
	for _, apply := range []func(*Container) error{
		f.process.apply, f.resources.apply, f.mounts.apply, f.ports.apply, f.devices.apply,
		f.security.apply, f.lifecycle.apply, f.logging.apply, f.health.apply, f.network.apply,
	} {
		if err := apply(c); err != nil {
			return nil, err
		}
	}
	f.changed(c)
	return c, nil
}

// changed sets what differs between a flag that was left out and one that was
// given its default.
func (f *Flags) changed(c *Container) {
	if f.set.Changed("stop-timeout") {
		c.Config.StopTimeout = &f.lifecycle.stopTimeout
	}
	if f.set.Changed("init") {
		c.HostConfig.Init = &f.process.init
	}
	if f.process.entrypoint == "" && f.set.Changed("entrypoint") {
		c.Config.Entrypoint = []string{""} // --entrypoint= resets the image's
	}
}
