package cgroup

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// put writes a value to a file of the controller (named as in v1). Errors are
// sentences: ErrNotImplemented when the machine lacks the controller or the
// file, ErrInvalidArgument when the kernel refuses the value.
func (c *Cgroup) put(controller, file, value string) error {
	dir, _ := c.dir(controller)
	if dir == "" {
		return errs.NotImplemented("cannot set %s to %q: this machine has no %s controller", file, value, controller)
	}
	return putIn(dir, controller, file, value)
}

func putIn(dir, controller, file, value string) error {
	if strings.Contains(file, "/") {
		return errs.InvalidArgument("invalid cgroup file name %q", file)
	}
	err := writeFile(filepath.Join(dir, file), value)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return errs.NotImplemented("cannot set %s to %q: the %s controller of this kernel does not offer it here: %w", file, value, controller, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENODEV):
		return errs.InvalidArgument("cannot set %s to %q: %w", file, value, errors.Unwrap(err))
	}
	return errs.System("cannot set %s to %q: %w", file, value, errors.Unwrap(err))
}

// has says whether the cgroup offers a file of a controller.
func (c *Cgroup) has(controller, file string) bool {
	dir, _ := c.dir(controller)
	return dir != "" && exists(filepath.Join(dir, file))
}
