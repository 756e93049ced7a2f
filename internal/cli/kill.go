package cli

import (
	"net/url"

	"github.com/spf13/cobra"
)

func (a *app) killCommand() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Kill one or more running containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if signal != "" {
				q.Set("signal", signal)
			}
			return a.each(args, func(name string) error { return a.post(cmd.Context(), name, "kill", q) })
		},
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cmd
}
