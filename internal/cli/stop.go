package cli

import "github.com/spf13/cobra"

func (a *app) stopCommand() *cobra.Command {
	var f stopFlags
	cmd := &cobra.Command{
		Use:   "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Stop one or more running containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(cmd)
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error { return a.post(cmd.Context(), name, "stop", q) })
		},
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	f.add(cmd)
	return cmd
}
