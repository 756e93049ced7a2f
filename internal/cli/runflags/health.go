package runflags

import (
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// health is the probe that tells a running container from a working one.
type health struct {
	cmd                                           string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	none                                          bool
}

func (p *health) add(fs *pflag.FlagSet) {
	fs.StringVar(&p.cmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&p.interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.IntVar(&p.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&p.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&p.startPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&p.startInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.BoolVar(&p.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

func (p *health) apply(c *Container) error {
	given := p.cmd != "" || p.interval != 0 || p.timeout != 0 || p.startPeriod != 0 || p.startInterval != 0 || p.retries != 0
	if p.none {
		if given {
			return errors.New("--no-healthcheck conflicts with --health-* options")
		}
		c.Config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	if !given {
		return nil
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"interval", int64(p.interval)}, {"timeout", int64(p.timeout)}, {"retries", int64(p.retries)},
		{"start-period", int64(p.startPeriod)}, {"start-interval", int64(p.startInterval)},
	} {
		if f.value < 0 {
			return fmt.Errorf("--health-%s cannot be negative", f.name)
		}
	}
	hc := &container.HealthConfig{
		Interval: p.interval, Timeout: p.timeout, Retries: p.retries,
		StartPeriod: p.startPeriod, StartInterval: p.startInterval,
	}
	if p.cmd != "" {
		hc.Test = []string{"CMD-SHELL", p.cmd}
	}
	c.Config.Healthcheck = hc
	return nil
}
