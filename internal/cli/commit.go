package cli

import (
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/common"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

func (a *app) commitCommand() *cobra.Command {
	var author, message string
	var pause bool
	changes := runflags.NewList(nil)
	cmd := &cobra.Command{
		Use:   "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short: "Create a new image from a container's changes",
		Args:  rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"container": {args[0]}}
			if len(args) > 1 && args[1] != "" {
				ref, err := parseRef(args[1])
				switch {
				case err != nil:
					return err
				case ref.isID:
					return fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", args[1])
				case ref.digest != "":
					return fmt.Errorf("refusing to create a tag with a digest reference")
				}
				ref = ref.withDefaultTag()
				q.Set("repo", ref.name())
				q.Set("tag", ref.tag)
			}
			if author != "" {
				q.Set("author", author)
			}
			if message != "" {
				q.Set("comment", message)
			}
			if len(changes.Values()) > 0 {
				q["changes"] = changes.Values()
			}
			if !pause {
				q.Set("pause", "0")
			}
			var resp common.IDResponse
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodPost, Path: "/commit", Query: q, JSON: struct{}{}}, &resp); err != nil {
				return err
			}
			fmt.Fprintln(a.out, resp.ID)
			return nil
		},
		ValidArgsFunction: a.completeContainers(anyState),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	fs.StringVarP(&message, "message", "m", "", "Commit message")
	fs.StringVarP(&author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.VarP(changes, "change", "c", "Apply Dockerfile instruction to the created image")
	return cmd
}
