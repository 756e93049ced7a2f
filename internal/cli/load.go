package cli

import (
	"errors"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/progress"
)

func (a *app) loadCommand() *cobra.Command {
	var input, platform string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "load [OPTIONS]",
		Short: "Load an image from a tar archive or STDIN",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := a.in
			if input != "" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			} else if isTerminal(a.in) {
				return errors.New("requested load from stdin, but stdin is empty")
			}
			q := url.Values{"quiet": {"0"}}
			if quiet || !isTerminal(a.out) {
				q.Set("quiet", "1")
			}
			if err := addPlatforms(q, "platform", platform); err != nil {
				return err
			}
			return a.upload(cmd, "/images/load", q, in)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	fs.StringVar(&platform, "platform", "", `Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

// upload streams in to the engine and shows what it reports.
func (a *app) upload(cmd *cobra.Command, path string, q url.Values, in io.Reader) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	resp, err := c.Do(cmd.Context(), &client.Request{Method: client.MethodPost, Path: path, Query: q, Stream: in, ContentType: "application/x-tar"})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		_, err = io.Copy(a.out, resp.Body)
		return err
	}
	return progress.View{Out: a.out}.Show(resp.Body)
}
