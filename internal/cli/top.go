package cli

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top CONTAINER [ps OPTIONS]",
		Short: "Display the running processes of a container",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if len(args) > 1 {
				q.Set("ps_args", strings.Join(args[1:], " "))
			}
			var r container.TopResponse
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: containerPath(args[0], "top"), Query: q}, &r); err != nil {
				return err
			}
			w := format.NewTable(a.out, 20, 3)
			fmt.Fprintln(w, strings.Join(r.Titles, "\t"))
			for _, p := range r.Processes {
				fmt.Fprintln(w, strings.Join(p, "\t"))
			}
			return w.Flush()
		},
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}
