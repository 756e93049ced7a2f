package cli

import "github.com/spf13/cobra"

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause CONTAINER [CONTAINER...]",
		Short: "Pause all processes within one or more containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(name string) error { return a.post(cmd.Context(), name, "pause", nil) })
		},
		ValidArgsFunction: a.completeContainers(isRunning),
	}
}

func (a *app) unpauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unpause CONTAINER [CONTAINER...]",
		Short: "Unpause all processes within one or more containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(name string) error { return a.post(cmd.Context(), name, "unpause", nil) })
		},
		ValidArgsFunction: a.completeContainers(isPaused),
	}
}
