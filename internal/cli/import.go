package cli

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

func (a *app) importCommand() *cobra.Command {
	changes := runflags.NewList(nil)
	var message, platform string
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] file|- [REPOSITORY[:TAG]]",
		Short: "Import the contents from a tarball to create a filesystem image",
		Args:  rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"fromSrc": {"-"}}
			if len(args) > 1 {
				if _, err := parseRef(args[1]); err != nil {
					return err
				}
				q.Set("repo", args[1])
			}
			if message != "" {
				q.Set("message", message)
			}
			if platform != "" {
				q.Set("platform", strings.ToLower(platform))
			}
			if len(changes.Values()) > 0 {
				q["changes"] = changes.Values()
			}
			in := a.in
			switch source := args[0]; {
			case source == "-":
			case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
				return &exitError{
					code: 1,
					err:  fmt.Errorf("cannot import from a URL: the engine does not download files"),
					hint: fmt.Sprintf("Download it yourself: curl -fL %s | gantry import -", source),
				}
			default:
				f, err := os.Open(source)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return a.upload(cmd, "/images/create", q, in)
		},
	}
	fs := cmd.Flags()
	fs.VarP(changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&message, "message", "m", "", "Set commit message for imported image")
	fs.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	return cmd
}
