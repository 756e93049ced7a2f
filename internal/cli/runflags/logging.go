package runflags

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// logging is where output is kept, and options of the writable layer.
type logging struct {
	driver     string
	opts       List
	storageOpt List
}

func (l *logging) add(fs *pflag.FlagSet) {
	fs.StringVar(&l.driver, "log-driver", "", "Logging driver for the container")
	fs.Var(&l.opts, "log-opt", "Log driver options")
	fs.Var(&l.storageOpt, "storage-opt", "Storage driver options for the container")
}

func (l *logging) apply(c *Container) error {
	if l.driver == "none" && len(l.opts.values) > 0 {
		return fmt.Errorf("invalid logging opts for driver %s", l.driver)
	}
	c.HostConfig.LogConfig = container.LogConfig{Type: l.driver, Config: Pairs(l.opts.values)}
	for _, o := range l.storageOpt.values {
		if !strings.Contains(o, "=") {
			return errors.New("invalid storage option")
		}
	}
	c.HostConfig.StorageOpt = Pairs(l.storageOpt.values)
	return nil
}
