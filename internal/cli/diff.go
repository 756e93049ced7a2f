package cli

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff CONTAINER",
		Short: "Inspect changes to files or directories on a container's filesystem",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return errors.New("container name cannot be empty")
			}
			var changes []container.FilesystemChange
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: containerPath(args[0], "changes")}, &changes); err != nil {
				return err
			}
			w := bufio.NewWriter(a.out)
			for _, c := range changes {
				fmt.Fprintln(w, c.Kind, c.Path)
			}
			return w.Flush()
		},
		ValidArgsFunction: a.completeContainers(anyState),
	}
}
