package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

type execFlags struct {
	detachKeys                           string
	interactive, tty, detach, privileged bool
	user, workdir                        string
	env, envFile                         *runflags.List
}

func (a *app) execCommand() *cobra.Command {
	f := execFlags{env: runflags.NewList(runflags.CheckEnv), envFile: runflags.NewList(nil)}
	cmd := &cobra.Command{
		Use:               "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short:             "Execute a command in a running container",
		Args:              minArgs(2),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.exec(cmd.Context(), &f, args[0], args[1:]) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVarP(&f.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVarP(&f.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to the command")
	fs.VarP(f.env, "env", "e", "Set environment variables")
	fs.Var(f.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

// exec creates and starts. An exec that was created and never started would
// stay in the engine, so all that can be wrong here is checked first.
func (a *app) exec(ctx context.Context, f *execFlags, name string, command []string) error {
	if strings.Trim(name, "/ ") == "" {
		return errors.New("invalid container name or ID: value is empty")
	}
	req, err := a.execRequest(f, command)
	if err != nil {
		return err
	}
	if !f.detach {
		if err := a.checkTTY(req.AttachStdin, f.tty); err != nil {
			return err
		}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	var created common.IDResponse
	err = c.JSON(ctx, &client.Request{
		Method: client.MethodPost, Path: containerPath(name, "exec"), JSON: req,
		Meanwhile: func() { c.Prepare(ctx, 1) }, // for the exit code
	}, &created)
	if err != nil {
		return err
	}
	start := container.ExecStartRequest{Detach: f.detach, Tty: f.tty, ConsoleSize: req.ConsoleSize}
	path := "/exec/" + created.ID
	if f.detach {
		return a.json(ctx, &client.Request{Method: client.MethodPost, Path: path + "/start", JSON: start}, nil)
	}
	s, err := c.Hijack(ctx, &client.Request{Method: client.MethodPost, Path: path + "/start", JSON: start})
	if err != nil {
		return runStatus(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.tty {
		a.followSize(ctx, path)
	}
	err = a.copy(ctx, a.attachment(s, req.AttachStdin, true, true, f.tty, req.DetachKeys))
	if errors.Is(err, errDetached) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.execStatus(ctx, path)
}

func (a *app) execRequest(f *execFlags, command []string) (*container.ExecCreateRequest, error) {
	env, err := runflags.ReadEnv(f.envFile.Values(), f.env.Values())
	if err != nil {
		return nil, err
	}
	req := &container.ExecCreateRequest{
		User:         f.user,
		Privileged:   f.privileged,
		Tty:          f.tty,
		Cmd:          command,
		Env:          env,
		WorkingDir:   f.workdir,
		DetachKeys:   f.detachKeys,
		AttachStdin:  f.interactive && !f.detach,
		AttachStdout: !f.detach,
		AttachStderr: !f.detach,
	}
	if req.DetachKeys == "" {
		req.DetachKeys = a.config().DetachKeys
	}
	if f.tty {
		size := a.terminalSize()
		req.ConsoleSize = &size
	}
	return req, nil
}

// execStatus asks for the exit code after the stream has ended.
func (a *app) execStatus(ctx context.Context, path string) error {
	var r container.ExecInspectResponse
	err := patiently(ctx, func() error {
		return a.json(ctx, &client.Request{Method: client.MethodGet, Path: path + "/json"}, &r)
	})
	if err != nil {
		return err
	}
	switch {
	case r.ExitCode == nil:
		// The stream was cut. Nothing is known of the command, least of all
		// that it went well.
		return errors.New("the connection to the command was lost, and it has not ended")
	case *r.ExitCode != 0:
		return &exitError{code: *r.ExitCode}
	}
	return nil
}

// runStatus gives an exec that could not start the code a shell would.
func runStatus(err error) error {
	var refused *client.Error
	if !errors.As(err, &refused) {
		return err
	}
	switch {
	case containsAny(refused.Message, "executable file not found", "no such file or directory"):
		return &exitError{code: 127, err: err}
	case containsAny(refused.Message, "permission denied", "is a directory", "exec format error"):
		return &exitError{code: 126, err: err}
	}
	return err
}
