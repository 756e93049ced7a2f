package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/auxprogress"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/progress"
)

func (a *app) pushCommand() *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] NAME[:TAG]",
		Short: "Upload an image to a registry",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if platform != "" {
				if err := addPlatforms(q, "platform", platform); err != nil {
					return err
				}
				a.note(a.out, "Using --platform pushes only the manifest of that platform.\nOther parts of a multi-platform image, such as attestations, are not included.\nTo push the whole image, leave the --platform flag out.\n")
			}
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
			case ref.digest != "":
				return errors.New("cannot push a digest reference")
			}
			if !all {
				q.Set("tag", ref.tag)
			}
			return a.push(cmd, ref, q, quiet)
		},
		ValidArgsFunction: a.completeImages(1),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	fs.Bool("disable-content-trust", true, "Accepted for Docker's sake: there is no content trust")
	fs.Lookup("disable-content-trust").Hidden = true
	return cmd
}

func (a *app) push(cmd *cobra.Command, ref imageRef, q url.Values, quiet bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	resp, err := c.Do(cmd.Context(), &client.Request{
		Method: client.MethodPost, Path: imagePath(ref.name(), "push"), Query: q, Header: a.registryAuthIfAny(ref.domain),
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var notes []string
	defer func() {
		for _, n := range notes {
			a.note(a.out, n)
		}
	}()
	view := progress.View{Out: a.out, Aux: func(raw json.RawMessage) { notes = append(notes, pushNotes(raw)...) }}
	if quiet {
		view.Out = nil
	}
	if err := view.Show(resp.Body); err != nil {
		return err
	}
	if quiet {
		fmt.Fprintln(a.out, ref.name()+ref.suffix())
	}
	return nil
}

// pushNotes says what a person should know about an image that is not here in
// full.
func pushNotes(raw json.RawMessage) []string {
	var one auxprogress.ManifestPushedInsteadOfIndex
	if json.Unmarshal(raw, &one) == nil && one.ManifestPushedInsteadOfIndex {
		return []string{fmt.Sprintf("Not all multiplatform-content is present and only the available single-platform image was pushed\n%s -> %s", one.OriginalIndex.Digest, one.SelectedManifest.Digest)}
	}
	var missing auxprogress.ContentMissing
	if json.Unmarshal(raw, &missing) == nil && missing.ContentMissing {
		return []string{"The image is an index of several platforms, and not all of them are here or in the registry.\nPull what is missing (gantry pull --platform all), or push one platform with --platform."}
	}
	return nil
}

// note prints lines that are neither result nor error.
func (a *app) note(w interface{ WriteString(string) (int, error) }, text string) {
	const head = " Info -> "
	var b strings.Builder
	b.WriteString("\n" + head)
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteString(strings.Repeat(" ", len(head)))
		}
		b.WriteString(line + "\n")
	}
	_, _ = w.WriteString(b.String())
}
