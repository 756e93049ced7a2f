package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait CONTAINER [CONTAINER...]",
		Short: "Block until one or more containers stop, then print their exit codes",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				end, err := a.waitFor(cmd.Context(), name, "")
				if err != nil {
					errs = append(errs, err)
					continue
				}
				end.onlyEngine()
				e := <-end.ended
				if e.err != nil {
					errs = append(errs, e.err)
					continue
				}
				fmt.Fprintln(a.out, e.code)
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: a.completeContainers(isRunning),
	}
}
