package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename CONTAINER NEW_NAME",
		Short: "Rename a container",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
			if from == "" || to == "" {
				return errors.New("neither the old nor the new name may be empty")
			}
			if err := a.post(cmd.Context(), from, "rename", url.Values{"name": {to}}); err != nil {
				return fmt.Errorf("cannot rename %s: %w", from, err)
			}
			return nil
		},
		ValidArgsFunction: a.completeContainers(anyState),
	}
}
