package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/progress"
)

func (a *app) pullCommand() *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			switch {
			case err != nil:
				return err
			case ref.isID:
				return fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", args[0])
			case all && ref.suffix() != "":
				return errors.New("tag can't be used with --all-tags/-a")
			case !all && ref.suffix() == "":
				ref = ref.withDefaultTag()
				if !quiet {
					fmt.Fprintln(a.out, "Using default tag:", ref.tag)
				}
			}
			var out = a.out
			if quiet {
				out = nil
			}
			if err := a.pull(cmd.Context(), ref, platform, out); err != nil {
				return err
			}
			fmt.Fprintln(a.out, ref.name()+ref.suffix())
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), `Set platform if server is multi-platform capable; "all" keeps the image whole`)
	fs.Bool("disable-content-trust", true, "Accepted for Docker's sake: there is no content trust")
	fs.Lookup("disable-content-trust").Hidden = true
	return cmd
}

// pullForRun reports on the error stream, because the output belongs to the
// container.
func (a *app) pullForRun(ctx context.Context, ref imageRef, f *createFlags) error {
	out := a.err
	if f.quiet {
		out = nil
	}
	return a.pull(ctx, ref.withDefaultTag(), f.platform, out)
}

// pull shows the progress on out, or not at all when that is nil.
func (a *app) pull(ctx context.Context, ref imageRef, platform string, out *os.File) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{"fromImage": {ref.name()}}
	switch {
	case ref.digest != "":
		q.Set("tag", ref.digest)
	case ref.tag != "":
		q.Set("tag", ref.tag)
	}
	if platform != "" {
		q.Set("platform", platform)
	}
	header, err := a.registryAuth(ref.domain)
	if err != nil {
		return err
	}
	resp, err := c.Do(ctx, &client.Request{Method: client.MethodPost, Path: "/images/create", Query: q, Header: header})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return progress.View{Out: out}.Show(resp.Body)
}
