package cli

import (
	"net/url"

	"github.com/spf13/cobra"
)

func (a *app) saveCommand() *cobra.Command {
	var output, platform string
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"names": args}
			if err := addPlatforms(q, "platform", platform); err != nil {
				return err
			}
			return a.download(cmd, "/images/get", q, output)
		},
		ValidArgsFunction: a.completeImages(-1),
	}
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	fs.StringVar(&platform, "platform", "", `Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}
