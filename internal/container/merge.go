package container

import (
	"maps"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
)

// mergeImage completes what a user asked for with what the image says.
func mergeImage(c *api.Config, image *dockerspec.DockerOCIImageConfig) error {
	if c.User == "" {
		c.User = image.User
	}
	for port := range image.ExposedPorts {
		p, err := network.ParsePort(port)
		if err != nil {
			return errs.InvalidArgument("the image exposes an invalid port: %w", err)
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = network.PortSet{}
		}
		c.ExposedPorts[p] = struct{}{}
	}
	c.Env = mergeEnv(c.Env, image.Env)
	labels := maps.Clone(image.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = image.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = image.Entrypoint
		}
	}
	// [""] is how a client takes away the image's entry point.
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	if c.WorkingDir == "" {
		c.WorkingDir = image.WorkingDir
	}
	if len(c.Volumes) == 0 {
		c.Volumes = nil // inspect tells "none" as null, whatever the client sent
	}
	for path := range image.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[path] = struct{}{}
	}
	if c.StopSignal == "" {
		c.StopSignal = image.StopSignal
	}
	if c.Shell == nil {
		c.Shell = image.Shell
	}
	c.Healthcheck = mergeHealthcheck(c.Healthcheck, image.Healthcheck)
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return errs.InvalidArgument("no command specified")
	}
	return nil
}

// mergeEnv appends the image's variables that the user did not set.
func mergeEnv(user, image []string) []string {
	set := map[string]bool{}
	for _, v := range user {
		name, _, _ := strings.Cut(v, "=")
		set[name] = true
	}
	for _, v := range image {
		if name, _, _ := strings.Cut(v, "="); !set[name] {
			user = append(user, v)
		}
	}
	return user
}

func mergeHealthcheck(user *api.HealthConfig, image *dockerspec.HealthcheckConfig) *api.HealthConfig {
	if image == nil {
		return user
	}
	if user == nil {
		return image
	}
	merged := *user
	if len(merged.Test) == 0 {
		merged.Test = image.Test
	}
	if merged.Interval == 0 {
		merged.Interval = image.Interval
	}
	if merged.Timeout == 0 {
		merged.Timeout = image.Timeout
	}
	if merged.StartPeriod == 0 {
		merged.StartPeriod = image.StartPeriod
	}
	if merged.StartInterval == 0 {
		merged.StartInterval = image.StartInterval
	}
	if merged.Retries == 0 {
		merged.Retries = image.Retries
	}
	return &merged
}
