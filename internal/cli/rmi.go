package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

func (a *app) rmiCommand() *cobra.Command {
	var force, noPrune bool
	var platforms []string
	cmd := &cobra.Command{
		Use:   "rmi [OPTIONS] IMAGE [IMAGE...]",
		Short: "Remove one or more images",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if force {
				q.Set("force", "1")
			}
			if noPrune {
				q.Set("noprune", "1")
			}
			if err := addPlatforms(q, "platforms", platforms...); err != nil {
				return err
			}
			var errs []error
			fatal := false
			for _, name := range args {
				var gone []image.DeleteResponse
				err := a.json(cmd.Context(), &client.Request{Method: client.MethodDelete, Path: imagePath(name, ""), Query: q}, &gone)
				if err != nil {
					errs = append(errs, err)
					fatal = fatal || !client.IsNotFound(err)
				}
				for _, g := range gone {
					if g.Deleted != "" {
						fmt.Fprintln(a.out, "Deleted:", g.Deleted)
					} else {
						fmt.Fprintln(a.out, "Untagged:", g.Untagged)
					}
				}
			}
			if force && !fatal {
				for _, err := range errs {
					fmt.Fprintln(a.err, "gantry:", err)
				}
				return nil
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: a.completeImages(-1),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	fs.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	fs.StringSliceVar(&platforms, "platform", nil, `Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

// addPlatforms adds os[/arch[/variant]] strings to q, each as the JSON the API
// wants for them.
func addPlatforms(q url.Values, key string, platforms ...string) error {
	for _, p := range platforms {
		if p == "" {
			continue
		}
		parts := strings.Split(strings.ToLower(p), "/")
		if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
			return fmt.Errorf("invalid platform %q: it should look like linux/amd64 or linux/arm/v7", p)
		}
		spec := map[string]string{"os": parts[0], "architecture": normalArch(parts[1])}
		if len(parts) == 3 {
			spec["variant"] = parts[2]
		}
		text, err := json.Marshal(spec)
		if err != nil {
			return err
		}
		q.Add(key, string(text))
	}
	return nil
}

// normalArch maps what uname prints to what images are called.
func normalArch(arch string) string {
	switch arch {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386":
		return "386"
	}
	return arch
}
