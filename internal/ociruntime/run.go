package ociruntime

import (
	"context"
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// run creates and starts a container. In the foreground it stays until the end,
// deletes the container unless keep, and returns the exit code.
func (r *runtime) run(ctx context.Context, o *createOptions, detach, keep bool) (int, error) {
	o.now, o.foreground = true, !detach
	var w watcher
	if !detach {
		w = watchSignals()
	}
	c, p, err := r.create(ctx, o)
	if err != nil {
		return 0, err
	}
	defer c.release()
	spec, err := c.spec()
	if err != nil {
		return 0, err
	}
	if err := r.poststart(ctx, c, spec); err != nil {
		_, _ = unix.Wait4(p.Pid, nil, 0, nil)
		return 0, errors.Join(err, r.destroy(ctx, c, spec))
	}
	if detach {
		return 0, nil
	}
	// While it runs, others must be able to pause or update it.
	c.release()
	code, err := w.wait(p)
	if err != nil || keep {
		return code, err
	}
	if err := c.acquire(); err != nil {
		return code, nil //nolint:nilerr // deleted by someone else meanwhile
	}
	return code, r.destroy(ctx, c, spec)
}

// execOptions are the flags of exec.
type execOptions struct {
	id                     string
	process                *specs.Process
	pidFile, consoleSocket string
	detach, ignorePaused   bool
	preserveFDs            int
	cgroup                 string // below the container's
}

// exec starts a further process in a running container and returns its exit
// code, unless it is detached.
func (r *runtime) exec(ctx context.Context, o *execOptions) (int, error) {
	c, err := r.load(o.id)
	if err != nil {
		return 0, err
	}
	switch s := c.status(); {
	case s == specs.StateRunning, s == specs.StateCreated, s == statusPaused && o.ignorePaused:
	case s == statusPaused:
		return 0, errs.Conflict("cannot exec in a paused container (use --ignore-paused to override)")
	default:
		return 0, errs.Conflict("cannot exec in container %s: it is %s", o.id, s)
	}
	spec, err := c.spec()
	if err != nil {
		return 0, err
	}
	if err := checkTerminal(o.process, o.consoleSocket, !o.detach); err != nil {
		return 0, err
	}
	cg, err := cgroup.Load(c.Cgroup + "/" + o.cgroup)
	if err != nil {
		return 0, err
	}
	if o.cgroup == "" {
		cg = cg.ForExec(c.Pid)
	}
	extra, env, err := inherited(o.preserveFDs)
	if err != nil {
		return 0, err
	}
	o.process.Env = append(o.process.Env, env...)
	var w watcher
	if !o.detach {
		w = watchSignals()
	}
	e := &ocirt.Exec{
		ID: c.ID, Pid: c.Pid, StartTime: c.StartTime, Spec: spec, Process: o.process, Cgroup: cg,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: extra,
		NoPivot: c.NoPivot, NoNewKeyring: c.NoNewKeyring,
	}
	p, err := e.Start(ctx)
	if err != nil {
		return 0, err
	}
	if err := announceExec(p, o); err != nil {
		_ = unix.PidfdSendSignal(int(p.PidFD.Fd()), unix.SIGKILL, nil, 0)
		_, _ = unix.Wait4(p.Pid, nil, 0, nil)
		return 0, err
	}
	if o.detach {
		return 0, nil
	}
	return w.wait(p)
}

func announceExec(p *ocirt.Process, o *execOptions) error {
	if o.consoleSocket != "" {
		if err := sendConsole(o.consoleSocket, p.Console); err != nil {
			return err
		}
		p.Console.Close()
		p.Console = nil
	}
	return writePidFile(o.pidFile, p.Pid)
}
