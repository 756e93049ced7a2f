package registryd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Main is "gantryd registry", with the arguments after that. It returns when the
// command is done, or after SIGTERM; a second signal kills it.
func Main(args []string, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "serve":
		err = runServe(ctx, args, out)
	case "gc":
		err = runCollect(ctx, args, out)
	case "", "help", "-h", "--help":
		fmt.Fprint(out, `Usage: gantryd registry COMMAND

Be a registry of images.

Commands:
  serve   Serve a registry
  gc      Collect garbage, and tags that retention lets go

Run 'gantryd registry COMMAND --help' for more on a command.
`)
	default:
		err = errs.InvalidArgument("gantryd registry has no command %q: there are serve and gc", command)
	}
	if errors.Is(err, ErrHelp) {
		return nil
	}
	return err
}

func runServe(ctx context.Context, args []string, out io.Writer) error {
	c, err := Parse(args, out)
	if err != nil {
		return err
	}
	s, err := Start(ctx, c)
	if err != nil {
		return err
	}
	return s.Serve(ctx)
}
