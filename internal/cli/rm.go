package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// errSkipped is a container that rm -f did not find: told, but no failure.
var errSkipped = errors.New("skipped")

func (a *app) rmCommand() *cobra.Command {
	var force, volumes, link bool
	cmd := &cobra.Command{
		Use:   "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Remove one or more containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			for name, on := range map[string]bool{"force": force, "v": volumes, "link": link} {
				if on {
					q.Set(name, "1")
				}
			}
			err := a.each(args, func(name string) error {
				id := strings.Trim(name, "/")
				if id == "" {
					return errors.New("container name cannot be empty")
				}
				err := a.json(cmd.Context(), &client.Request{Method: client.MethodDelete, Path: containerPath(id, ""), Query: q}, nil)
				if force && client.IsNotFound(err) {
					fmt.Fprintln(a.err, "gantry:", err)
					return errSkipped
				}
				return err
			})
			return withoutSkipped(err)
		},
		ValidArgsFunction: a.completeContainers(func(state string) bool { return force || !isRunning(state) }),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	fs.BoolVarP(&link, "link", "l", false, "Remove the specified link")
	fs.BoolVarP(&force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	return cmd
}

func withoutSkipped(err error) error {
	if errors.Is(err, errSkipped) {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			return nil
		}
		var rest []error
		for _, e := range joined.Unwrap() {
			if !errors.Is(e, errSkipped) {
				rest = append(rest, e)
			}
		}
		return errors.Join(rest...)
	}
	return err
}
