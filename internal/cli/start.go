package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

type startFlags struct {
	attach, interactive bool
	detachKeys          string
}

func (a *app) startCommand() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case !f.attach && !f.interactive:
				return a.startAll(cmd.Context(), args)
			case len(args) > 1:
				return errors.New("you cannot start and attach multiple containers at once")
			}
			return a.startAttached(cmd.Context(), &f, args[0])
		},
		ValidArgsFunction: a.completeContainers(func(state string) bool { return !isRunning(state) }),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Attach container's STDIN")
	fs.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func (a *app) startAll(ctx context.Context, names []string) error {
	var failed []string
	for _, name := range names {
		if err := a.post(ctx, name, "start", nil); err != nil {
			fmt.Fprintln(a.err, "gantry:", err)
			failed = append(failed, name)
			continue
		}
		fmt.Fprintln(a.out, name)
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed to start containers: %s", strings.Join(failed, ", "))
	}
	return nil
}

// startAttached attaches and waits before it starts, as run does.
func (a *app) startAttached(ctx context.Context, f *startFlags, name string) error {
	c, err := a.inspectContainer(ctx, name)
	if err != nil {
		return err
	}
	tty := c.Config.Tty
	streamCtx, giveUp := context.WithCancelCause(ctx)
	cancel := func() { giveUp(nil) }
	defer cancel()
	if !tty {
		defer a.proxySignals(ctx, c.ID, giveUp)()
	}
	streams := &container.Config{
		AttachStdin:  f.interactive && c.Config.OpenStdin,
		AttachStdout: true,
		AttachStderr: true,
		Tty:          tty,
	}
	if err := a.checkTTY(streams.AttachStdin, tty); err != nil {
		return err
	}
	att, err := a.attach(streamCtx, c.ID, streams, f.detachKeys, nil)
	if err != nil {
		return err
	}
	condition := container.WaitConditionNextExit
	if c.HostConfig.AutoRemove {
		condition = container.WaitConditionRemoved
	}
	end, err := a.waitFor(ctx, c.ID, condition)
	if err != nil {
		att.stream.Close()
		return err
	}
	streamed := make(chan error, 1)
	go func() { streamed <- a.copy(streamCtx, att) }()
	if err := a.start(ctx, c.ID, c.State.StartedAt, nil); err != nil {
		cancel()
		<-streamed
		if c.HostConfig.AutoRemove {
			end.removed(err)
		}
		return err
	}
	end.started()
	if tty {
		a.followSize(streamCtx, containerPath(c.ID, ""))
	}
	return finish(streams, streamed, end, cancel)
}
