package runflags

import (
	"errors"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// lifecycle is how a container stops, what happens then, and where its ID is
// written.
type lifecycle struct {
	rm          bool
	restart     string
	stopSignal  string
	stopTimeout int
	cidfile     string
}

func (l *lifecycle) add(fs *pflag.FlagSet) {
	fs.BoolVar(&l.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.StringVar(&l.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.StringVar(&l.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&l.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.StringVar(&l.cidfile, "cidfile", "", "Write the container ID to the file")
}

func (l *lifecycle) apply(c *Container) error {
	policy, err := ParseRestart(l.restart)
	if err != nil {
		return err
	}
	if l.rm && !policy.IsNone() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	c.HostConfig.RestartPolicy = policy
	c.HostConfig.AutoRemove = l.rm
	c.HostConfig.ContainerIDFile = l.cidfile
	c.Config.StopSignal = l.stopSignal
	return nil
}

// ParseRestart reads policy[:count].
func ParseRestart(s string) (container.RestartPolicy, error) {
	var p container.RestartPolicy
	name, count, ok := strings.Cut(s, ":")
	if ok && name == "" {
		return p, errors.New("invalid restart policy format: no policy provided before colon")
	}
	if count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	p.Name = container.RestartPolicyMode(name)
	return p, nil
}
