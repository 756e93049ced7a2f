package cli

import (
	"context"
	"errors"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

type attachFlags struct {
	noStdin, sigProxy bool
	detachKeys        string
}

func (a *app) attachCommand() *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:               "attach [OPTIONS] CONTAINER",
		Short:             "Attach local standard input, output, and error streams to a running container",
		Args:              exactArgs(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.attachTo(cmd.Context(), &f, args[0]) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&f.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	fs.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func (a *app) attachTo(ctx context.Context, f *attachFlags, name string) error {
	c, err := a.inspectContainer(ctx, name)
	if err != nil {
		return err
	}
	if err := mayAttach(c); err != nil {
		return err
	}
	tty := c.Config.Tty
	if err := a.checkTTY(!f.noStdin, tty); err != nil {
		return err
	}
	// The wait comes first: a container that ends between here and the attach
	// still gives its exit code.
	end, err := a.waitFor(ctx, c.ID, container.WaitConditionNotRunning)
	if err != nil {
		return err
	}
	streamCtx, giveUp := context.WithCancelCause(ctx)
	cancel := func() { giveUp(nil) }
	defer cancel()
	if f.sigProxy && !tty {
		defer a.proxySignals(ctx, c.ID, giveUp)()
	}
	streams := &container.Config{
		AttachStdin:  !f.noStdin && c.Config.OpenStdin,
		AttachStdout: true,
		AttachStderr: true,
		Tty:          tty,
	}
	att, err := a.attach(streamCtx, c.ID, streams, f.detachKeys, nil)
	if err != nil {
		return err
	}
	// A container that ended before the stream was open sends nothing on it.
	if now, err := a.inspectContainer(ctx, c.ID); err == nil && !now.State.Running || err != nil && !client.IsLost(err) {
		att.stream.Close()
		end.onlyEngine()
		return (<-end.ended).status()
	}
	if tty && isTerminal(a.out) {
		// A change of size makes a shell draw its prompt again.
		if size := a.terminalSize(); size[0] > 0 {
			_ = a.resizeTo(ctx, containerPath(c.ID, ""), size[0]+1, size[1]+1)
		}
		a.followSize(streamCtx, containerPath(c.ID, ""))
	}
	streamed := make(chan error, 1)
	go func() { streamed <- a.copy(streamCtx, att) }()
	return finish(streams, streamed, end, cancel)
}

func mayAttach(c *container.InspectResponse) error {
	switch {
	case !c.State.Running:
		return errors.New("you cannot attach to a stopped container, start it first")
	case c.State.Paused:
		return errors.New("you cannot attach to a paused container, unpause it first")
	case c.State.Restarting:
		return errors.New("you cannot attach to a restarting container, wait until it is running")
	}
	return nil
}

// attach opens the stream to a container's process. Meanwhile may be nil; see
// client.Request.
func (a *app) attach(ctx context.Context, id string, cfg *container.Config, keys string, meanwhile func()) (*attachment, error) {
	keys = a.detachKeys(keys)
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	s, err := c.Hijack(ctx, &client.Request{Method: client.MethodPost, Path: "/containers/" + id + "/attach", Query: attachQuery(cfg, keys), Meanwhile: meanwhile})
	if err != nil {
		return nil, err
	}
	return a.attachment(s, cfg.AttachStdin, cfg.AttachStdout, cfg.AttachStderr, cfg.Tty, keys), nil
}

// detachKeys are those of the flag, or of the configuration, "" for the default.
func (a *app) detachKeys(flag string) string {
	if flag == "" {
		return a.config().DetachKeys
	}
	return flag
}

// attachQuery says which streams to attach.
func attachQuery(cfg *container.Config, keys string) url.Values {
	q := url.Values{"stream": {"1"}}
	for name, on := range map[string]bool{"stdin": cfg.AttachStdin, "stdout": cfg.AttachStdout, "stderr": cfg.AttachStderr} {
		if on {
			q.Set(name, "1")
		}
	}
	if keys != "" {
		q.Set("detachKeys", keys)
	}
	return q
}

func (a *app) attachment(s *client.Stream, stdin, stdout, stderr, tty bool, keys string) *attachment {
	att := &attachment{stream: s, tty: tty, detachKeys: keys}
	if stdin {
		att.in = a.in
	}
	if stdout {
		att.out = a.out
	}
	if stderr {
		att.err = io.Writer(a.err)
		if tty {
			att.err = a.out
		}
	}
	return att
}
