package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) restartCommand() *cobra.Command {
	var f stopFlags
	cmd := &cobra.Command{
		Use:   "restart [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Restart one or more containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(cmd)
			if err != nil {
				return err
			}
			// One after another: the order may matter to those that depend on each
			// other.
			var errs []error
			for _, name := range args {
				if err := a.post(cmd.Context(), name, "restart", q); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(a.out, name)
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: a.completeContainers(anyState),
	}
	f.add(cmd)
	return cmd
}
