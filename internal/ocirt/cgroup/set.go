package cgroup

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// put writes a value to a file of the controller (named as in v1). Errors are
// sentences: ErrNotImplemented when the machine lacks the controller or the
// file, ErrInvalidArgument when the kernel refuses the value.
func (c *Cgroup) put(controller, file, value string) error {
	dir, v2 := c.dir(controller)
	if dir == "" {
		return errs.NotImplemented("cannot set %s to %q: this machine has no %s controller", file, value, controller)
	}
	err := putIn(dir, controller, file, value)
	if v2 && errors.Is(err, unix.ENOENT) && !enabled(dir, v2Name(controller)) {
		// As in a container without an init: its root has processes, and then
		// v2 keeps its controllers ("no internal processes").
		return errs.NotImplemented("cannot set %s to %q: cgroup v2 does not hand the %s controller down to %s, probably because processes live in a cgroup above it: %w", file, value, v2Name(controller), c.path, unix.ENOENT)
	}
	return err
}

// enabled says whether a v2 directory was handed a controller.
func enabled(dir, controller string) bool {
	s, err := readFile(filepath.Join(dir, "cgroup.controllers"))
	return err != nil || slices.Contains(strings.Fields(s), controller)
}

func putIn(dir, controller, file, value string) error {
	if strings.Contains(file, "/") {
		return errs.InvalidArgument("invalid cgroup file name %q", file)
	}
	if err := writeFile(filepath.Join(dir, file), value); err != nil {
		return refused(err, controller, file, value)
	}
	return nil
}

// refused says in a sentence why a control file could not be written.
func refused(err error, controller, file, value string) error {
	switch {
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
