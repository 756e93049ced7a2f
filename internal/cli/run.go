package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

type runFlags struct {
	createFlags
	detach     bool
	sigProxy   bool
	detachKeys string
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := a.spec(cmd, &f.createFlags, args)
			if err != nil {
				return withHelp(cmd, 125, err)
			}
			return a.run1(cmd, &f, spec)
		},
		ValidArgsFunction: a.completeImages(1),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&f.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.add(fs, "running")
	return cmd
}

// run1 creates, attaches, waits and starts, in this order, so that no output
// and no exit code is missed. An engine of ours does all but the wait in one
// request: nobody waits for us between its steps.
func (a *app) run1(cmd *cobra.Command, f *runFlags, spec *runflags.Container) error {
	ctx := cmd.Context()
	cfg := spec.Config
	if f.detach {
		if f.flags.Attaches() {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		cfg.AttachStdin, cfg.AttachStdout, cfg.AttachStderr, cfg.StdinOnce = false, false, false, false
	} else if err := a.checkTTY(cfg.AttachStdin, cfg.Tty); err != nil {
		return err
	}
	attached := cfg.AttachStdin || cfg.AttachStdout || cfg.AttachStderr
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var signals *signalProxy
	defer func() { signals.end() }()
	if !f.socket { // what that puts into the container comes before the start
		f.ahead = aheadOf(cfg, a.detachKeys(f.detachKeys))
	}
	if attached && (f.socket || !mayTell(cfg)) {
		f.connections = 1 // of the wait; Docker's engine is asked for more
	}
	if attached && f.sigProxy {
		f.meanwhile = func() {
			if signals == nil { // it may be asked twice
				signals = a.catchSignals(cmd.Context(), giveUp)
			}
		}
		f.exists = func(id string) { signals.exists(id, f.ahead != nil && f.ahead.tells) }
	}
	id, err := a.create(ctx, &f.createFlags, spec)
	switch {
	case err != nil:
		return runError(cmd, err)
	case f.ahead != nil && f.ahead.stream != nil:
		return a.runAhead(ctx, cmd, f, spec, id, signals)
	case !attached:
		return a.runDetached(cmd, f, spec, id)
	}
	return a.runAttached(ctx, cmd, f, spec, id, signals)
}

// runDetached prints the ID even when the start fails: the container exists,
// and the ID is how to look at it.
func (a *app) runDetached(cmd *cobra.Command, f *runFlags, spec *runflags.Container, id string) error {
	fmt.Fprintln(a.out, id)
	ctx := cmd.Context()
	var err error
	if f.ahead != nil && f.ahead.begun != nil {
		err = a.startedMeanwhile(ctx, id, neverStarted, f.ahead.begun())
	} else {
		err = a.start(ctx, id, neverStarted, nil)
	}
	if refused := (*client.Error)(nil); spec.HostConfig.AutoRemove && errors.As(err, &refused) {
		a.awaitRemoval(ctx, id)
	}
	return runError(cmd, err)
}

// runAttached attaches, waits and starts.
func (a *app) runAttached(ctx context.Context, cmd *cobra.Command, f *runFlags, spec *runflags.Container, id string, signals *signalProxy) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg := spec.Config
	condition := container.WaitConditionNextExit
	if spec.HostConfig.AutoRemove {
		condition = container.WaitConditionRemoved
	}
	var end *waiting
	var notWaiting error
	att, err := a.attach(ctx, id, cfg, f.detachKeys, func() {
		end, notWaiting = a.waitFor(cmd.Context(), id, condition)
	})
	if err != nil {
		return err
	}
	if notWaiting != nil {
		att.stream.Close()
		return runError(cmd, notWaiting)
	}
	streamed := make(chan error, 1)
	begin := func() { go func() { streamed <- a.copy(ctx, att) }() }
	if cfg.Tty {
		begin() // the first byte is for a terminal in raw mode
		begin = nil
	}
	err = a.start(ctx, id, neverStarted, func() {
		if begin != nil {
			begin()
			begin = nil
		}
	})
	if err != nil {
		cancel()
		if begin != nil {
			att.stream.Close()
		} else {
			<-streamed // the terminal is itself again
		}
		if spec.HostConfig.AutoRemove {
			end.removed(err)
		}
		return runError(cmd, err)
	}
	return a.seeOut(ctx, cfg, id, streamed, end, signals, cancel)
}

// seeOut is the rest of a run, once the container runs and we are attached to it.
func (a *app) seeOut(ctx context.Context, cfg *container.Config, id string, streamed <-chan error, end *waiting, signals *signalProxy, cancel func()) error {
	end.started()
	signals.begun()
	if cfg.Tty {
		a.followSize(ctx, "/containers/"+id)
	}
	return finish(cfg, streamed, end, cancel)
}

// finish waits for the streams and the exit code, whichever comes first.
func finish(cfg *container.Config, streamed <-chan error, end *waiting, cancel func()) error {
	select {
	case err := <-streamed:
		if errors.Is(err, errDetached) {
			return nil
		}
		if err != nil {
			return err
		}
		end.onlyEngine()
		return (<-end.ended).status()
	case e := <-end.ended:
		switch {
		case !cfg.AttachStdout && !cfg.AttachStderr:
			cancel() // only input is attached, and nobody reads it any more
		case e.err != nil:
			// The engine cannot tell; what was sent is on its way.
			defer time.AfterFunc(lastWords, cancel).Stop()
		}
		<-streamed
		return e.status()
	}
}

// lastWords is how long output may still come when the engine cannot tell of the
// container.
const lastWords = 500 * time.Millisecond

// neverStarted is when a container was started that was not.
const neverStarted = "0001-01-01T00:00:00Z"

// start starts a container that was started last at that time. When the engine
// goes away meanwhile, the next one knows whether it had got that far.
func (a *app) start(ctx context.Context, id, last string, meanwhile func()) error {
	err := a.json(ctx, &client.Request{Method: client.MethodPost, Path: "/containers/" + id + "/start", Meanwhile: meanwhile}, nil)
	return a.startedMeanwhile(ctx, id, last, err)
}

// startedMeanwhile is the answer to a start, err unless that is of an engine that
// went away: see start.
func (a *app) startedMeanwhile(ctx context.Context, id, last string, err error) error {
	if !client.IsLost(err) {
		return err
	}
	var c *container.InspectResponse
	lost := patiently(ctx, func() (err error) {
		c, err = a.inspectContainer(ctx, id)
		return err
	})
	switch {
	case client.IsNotFound(lost):
		return nil // it has removed itself after its end, which its waiting tells of
	case lost != nil:
		return lost
	case c.State.StartedAt == last:
		return err
	}
	return nil
}

// awaitRemoval waits for a --rm container that an engine could not start to be gone.
func (a *app) awaitRemoval(ctx context.Context, id string) {
	if end, err := a.waitFor(ctx, id, container.WaitConditionRemoved); err == nil {
		end.removed(nil)
	}
}

// runError gives an error of the engine the exit code scripts expect: 127 when
// the command does not exist in the image, 126 when it cannot be executed, and
// 125 when the engine failed.
func runError(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return err
	}
	msg := err.Error()
	code := 125
	switch {
	case containsAny(msg, "executable file not found", "no such file or directory", "system cannot find the file specified"):
		code = 127
	case containsAny(msg, "permission denied", "is a directory", "exec format error"):
		code = 126
	}
	var connect *client.ConnectError
	if errors.As(err, &connect) {
		return &exitError{code: 125, err: err} // the hint is about the engine
	}
	return withHelp(cmd, code, err)
}

func containsAny(s string, subs ...string) bool {
	for _, sub := range subs {
		if strings.Contains(s, sub) {
			return true
		}
	}
	return false
}
