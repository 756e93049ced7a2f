package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

func (a *app) tagCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := parseRef(args[0]); err != nil {
				return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[0], err)
			}
			to, err := parseRef(args[1])
			switch {
			case err != nil:
				return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[1], err)
			case to.isID:
				return fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", args[1])
			case to.digest != "":
				return fmt.Errorf("refusing to create a tag with a digest reference")
			}
			to = to.withDefaultTag()
			q := url.Values{"repo": {to.name()}, "tag": {to.tag}}
			return a.json(cmd.Context(), &client.Request{Method: client.MethodPost, Path: imagePath(args[0], "tag"), Query: q}, nil)
		},
		ValidArgsFunction: a.completeImages(2),
	}
}
