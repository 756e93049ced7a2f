package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// begin is the start operation: it lets a created container execute its program.
func (r *runtime) begin(ctx context.Context, id string) error {
	c, err := r.loadLocked(id)
	if err != nil {
		return err
	}
	defer c.release()
	if s := c.status(); s != specs.StateCreated {
		return errs.Conflict("cannot start container %s: it is %s", id, s)
	}
	spec, err := c.spec()
	if err != nil {
		return err
	}
	if spec.Process == nil {
		return c.refuse(ctx)
	}
	hooks := hooksOf(spec)
	if len(hooks.StartContainer) > 0 {
		if err := ocirt.RunContainerHooks(ctx, c.Pid, spec, hooks.StartContainer, c.state(), cgroup.New(c.Cgroup)); err != nil {
			_ = r.destroy(ctx, c, spec)
			return err
		}
	}
	if err := c.letGo(); err != nil {
		return err
	}
	return r.poststart(ctx, c, spec)
}

// refuse is the start of a container that was created without a process, which
// has to fail (runtime.md, "Start"). It ends what held its namespaces.
func (c *container) refuse(ctx context.Context) error {
	wait, cancel := context.WithTimeoutCause(ctx, endFor, fmt.Errorf("killed %s ago", endFor))
	defer cancel()
	if err := errors.Join(c.signal(unix.SIGKILL), c.waitEnd(wait)); err != nil {
		return err
	}
	return errs.InvalidArgument("cannot start container %s: its configuration has no process", c.ID)
}

// letGo releases the waiting process and returns when it has executed its
// program, or died trying: the process holds its end of the FIFO until then.
func (c *container) letGo() error {
	fifo, err := unix.Open(c.fifo(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot start container %s: nothing waits to be started: %w", c.ID, err)
	}
	defer unix.Close(fifo)
	if err := ocirt.Release(c.fifo()); err != nil {
		return err
	}
	if err := os.Remove(c.fifo()); err != nil {
		return fmt.Errorf("cannot start container %s: %w", c.ID, err)
	}
	fds := []unix.PollFd{{Fd: int32(fifo)}} // POLLERR is always reported
	deadline := time.Now().Add(endFor)
	for {
		n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("cannot start container %s: %w", c.ID, err)
		}
		if time.Now().After(deadline) {
			return errs.Unavailable("container %s has not executed its program within %s", c.ID, endFor)
		}
	}
}

// poststart runs the hooks after the start (runtime.md, "Lifecycle", step 9). One
// that fails ends a container of version 1.3 and later; until 1.2 the
// specification has a warning and the next hook.
func (r *runtime) poststart(ctx context.Context, c *container, spec *specs.Spec) error {
	hooks := hooksOf(spec).Poststart
	if len(hooks) == 0 {
		return nil
	}
	state := c.state()
	state.Status = specs.StateRunning
	for i := range hooks {
		err := ocirt.RunHooks(ctx, hooks[i:i+1], state)
		if err == nil {
			continue
		}
		if minorOf(spec.Version) >= 3 {
			_ = c.killAll(unix.SIGKILL)
			return err
		}
		r.warn("%v", err)
	}
	return nil
}

// minorOf is the second number of a version that was checked.
func minorOf(version string) int {
	_, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, _ := strconv.Atoi(minor)
	return n
}

func hooksOf(spec *specs.Spec) specs.Hooks {
	if spec.Hooks == nil {
		return specs.Hooks{}
	}
	return *spec.Hooks
}

// poststop runs the hooks after a container is gone. Failures are warnings.
func (r *runtime) poststop(ctx context.Context, c *container, spec *specs.Spec) {
	state := c.state()
	state.Status, state.Pid = specs.StateStopped, 0
	for _, h := range hooksOf(spec).Poststop {
		if err := ocirt.RunHooks(ctx, []specs.Hook{h}, state); err != nil {
			r.warn("%v", err)
		}
	}
}

// kill is the kill operation. With all it reaches every process of the
// container's cgroup, and a stopped container is no error then.
func (r *runtime) kill(id string, sig unix.Signal, all bool) error {
	c, err := r.load(id)
	if err != nil {
		return err
	}
	if all {
		return c.killAll(sig)
	}
	switch s := c.status(); s {
	case specs.StateCreated, specs.StateRunning, statusPaused:
	default:
		return errs.Conflict("cannot kill container %s: container not running (it is %s)", id, s)
	}
	if sig == unix.SIGKILL {
		spec, err := c.spec()
		if err != nil {
			return err
		}
		if !ownsPids(spec) {
			// Nothing else ends the others with the first one.
			return c.killAll(sig)
		}
	}
	if err := c.signal(sig); err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		return thaw(c)
	}
	return nil
}

// thaw lets a frozen process die: v1's freezer holds even those that are killed.
func thaw(c *container) error {
	cg := cgroup.New(c.Cgroup)
	if frozen, err := cg.Frozen(); err != nil || !frozen {
		return nil //nolint:nilerr // the cgroup is gone with the process
	}
	return cg.Thaw()
}

func (c *container) killAll(sig unix.Signal) error {
	if _, err := cgroup.Load(c.Cgroup); err == nil {
		if err := cgroup.New(c.Cgroup).Kill(sig); err != nil {
			return fmt.Errorf("cannot kill container %s: %w", c.ID, err)
		}
	}
	// The first process may have been moved elsewhere.
	if err := c.signal(sig); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

// ownsPids says whether the container has a PID namespace of its own.
func ownsPids(spec *specs.Spec) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// delete is the delete operation. With force a container is killed first, and
// one that does not exist is no error.
func (r *runtime) delete(ctx context.Context, id string, force bool) error {
	c, err := r.loadLocked(id)
	if force && errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.release()
	spec, err := c.spec()
	if err != nil && !force {
		return err
	}
	if s := c.status(); s != specs.StateStopped && c.Pid != 0 && !force {
		return errs.Conflict("cannot delete container %s: container is not stopped (it is %s)", id, s)
	}
	if spec == nil {
		spec = &specs.Spec{}
	}
	return r.destroy(ctx, c, spec)
}

// endFor bounds how long a killed process may take to end.
const endFor = 10 * time.Second

// destroy undoes create: it kills what is left, removes the cgroup and the
// directory, and runs the last hooks.
func (r *runtime) destroy(ctx context.Context, c *container, spec *specs.Spec) error {
	if err := c.killAll(unix.SIGKILL); err != nil {
		return err
	}
	wait, cancel := context.WithTimeoutCause(ctx, endFor, fmt.Errorf("killed %s ago", endFor))
	defer cancel()
	if err := c.waitEnd(wait); err != nil {
		return err
	}
	if c.Cgroup != "" {
		if err := cgroup.New(c.Cgroup).Delete(); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("cannot remove the state of container %s: %w", c.ID, err)
	}
	r.poststop(ctx, c, spec)
	return nil
}

// freeze is pause and resume.
func (r *runtime) freeze(id string, on bool) error {
	c, err := r.loadLocked(id)
	if err != nil {
		return err
	}
	defer c.release()
	cg := cgroup.New(c.Cgroup)
	switch s := c.status(); {
	case on && (s == specs.StateRunning || s == specs.StateCreated):
		return cg.Freeze()
	case !on && s == statusPaused:
		return cg.Thaw()
	case on:
		return errs.Conflict("cannot pause container %s: it is %s", id, s)
	default:
		return errs.Conflict("cannot resume container %s: it is %s, not paused", id, s)
	}
}
