package cli

import (
	"bufio"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

type imagesFlags struct {
	quiet, all, noTrunc, digests, tree bool
	format                             string
	filter                             filters
}

func (a *app) imagesCommand() *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "images [OPTIONS] [REPOSITORY[:TAG]]",
		Short: "List images",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				f.filter.add("reference", args[0])
			}
			if f.tree {
				return a.imageTree(cmd, &f)
			}
			found, err := a.images(cmd, &f)
			if err == nil && !found && len(args) > 0 && cmd.CommandPath() == "gantry images" {
				a.mistakenImages(args[0])
			}
			return err
		},
		ValidArgsFunction: a.completeImages(1),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVarP(&f.all, "all", "a", false, "Show all images (default hides intermediate images)")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVar(&f.digests, "digests", false, "Show digests")
	fs.StringVar(&f.format, "format", "", format.Help)
	fs.VarP(&f.filter, "filter", "f", "Filter output based on conditions provided")
	fs.BoolVar(&f.tree, "tree", false, "List multi-platform images as a tree (EXPERIMENTAL)")
	return cmd
}

func (a *app) listImages(cmd *cobra.Command, f *imagesFlags) (list []image.Summary, err error) {
	q := url.Values{}
	if f.all {
		q.Set("all", "1")
	}
	if f.tree {
		q.Set("manifests", "1")
	}
	err = a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: "/images/json", Query: f.filter.query(q)}, &list)
	return list, err
}

func (a *app) imageTree(cmd *cobra.Command, f *imagesFlags) error {
	for _, c := range []struct {
		given bool
		name  string
	}{{f.quiet, "quiet"}, {f.noTrunc, "no-trunc"}, {f.digests, "show-digest"}, {f.format != "", "format"}} {
		if c.given {
			return fmt.Errorf("--%s is not yet supported with --tree", c.name)
		}
	}
	list, err := a.listImages(cmd, f)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(a.out)
	printTree(w, treeOf(list, f.all), int(a.terminalSize()[1]), isTerminal(a.out))
	return w.Flush()
}

// mistakenImages helps who typed `gantry images ls`, and asked for images
// called ls.
func (a *app) mistakenImages(name string) {
	for _, e := range commands() {
		if e.at("image", name) {
			fmt.Fprintf(a.err, "\nNo images found matching %q: did you mean \"gantry image %[1]s\"?\n", name)
			return
		}
	}
}

// images says whether there were any.
func (a *app) images(cmd *cobra.Command, f *imagesFlags) (found bool, err error) {
	list, err := a.listImages(cmd, f)
	if err != nil {
		return false, err
	}
	if f.format == "" && !f.quiet {
		f.format = a.config().ImagesFormat
	}
	text := f.text()
	var rows []*imageRow
	for i := range list {
		rows = append(rows, imageRows(&list[i], !f.noTrunc, f.digests, f.digests || strings.Contains(text, "{{.Digest}}"))...)
	}
	return len(rows) > 0, format.Rows(a.out, text, imageHeader(), rows)
}

func (f *imagesFlags) text() string {
	const age = "{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}"
	switch {
	case f.format != "" && f.format != "table" && f.format != "raw":
		if strings.HasPrefix(f.format, "table") && f.digests && !strings.Contains(f.format, "{{.Digest}}") {
			return f.format + "\t{{.Digest}}"
		}
		return f.format
	case f.format == "raw" && f.quiet:
		return "image_id: {{.ID}}"
	case f.format == "raw":
		digest := ""
		if f.digests {
			digest = "digest: {{.Digest}}\n"
		}
		return "repository: {{ .Repository }}\ntag: {{.Tag}}\n" + digest + "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
	case f.quiet:
		return "{{.ID}}"
	case f.digests:
		return "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t" + age + "\t{{.Size}}"
	}
	return "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t" + age + "\t{{.Size}}"
}

// imageRow is one name of an image; an image has as many rows as names.
type imageRow struct {
	i                 *image.Summary
	repo, tag, digest string
	trunc             bool
}

func imageHeader() format.Header {
	return format.Header{
		"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST",
		"CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS",
		"VirtualSize": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	}
}

const none = "<none>"

// imageRows pairs the tags of an image with the digests of the same repository,
// which matter only when they are shown.
func imageRows(i *image.Summary, trunc, showDigests, needDigests bool) []*imageRow {
	row := func(repo, tag, digest string) *imageRow { return &imageRow{i, repo, tag, digest, trunc} }
	digests := map[string][]string{}
	for _, s := range i.RepoDigests {
		if ref, err := parseRef(s); err == nil && ref.digest != "" {
			digests[ref.familiarName()] = append(digests[ref.familiarName()], ref.digest)
		}
	}
	var rows []*imageRow
	tagged := map[string]bool{}
	for _, s := range i.RepoTags {
		ref, err := parseRef(s)
		if err != nil || ref.tag == "" {
			continue
		}
		repo := ref.familiarName()
		tagged[repo] = true
		if !needDigests || len(digests[repo]) == 0 {
			rows = append(rows, row(repo, ref.tag, none))
			continue
		}
		for _, d := range digests[repo] {
			rows = append(rows, row(repo, ref.tag, d))
		}
	}
	repos := make([]string, 0, len(digests))
	for repo := range digests {
		if !tagged[repo] {
			repos = append(repos, repo)
		}
	}
	slices.Sort(repos)
	for _, repo := range repos {
		if !showDigests {
			rows = append(rows, row(repo, none, ""))
			continue
		}
		for _, d := range digests[repo] {
			rows = append(rows, row(repo, none, d))
		}
	}
	if len(rows) == 0 {
		rows = append(rows, row(none, none, none))
	}
	return rows
}

func (r *imageRow) IsRow() bool { return true }

func (r *imageRow) ID() string {
	if r.trunc {
		return format.ShortID(r.i.ID)
	}
	return r.i.ID
}

func (r *imageRow) Repository() string { return r.repo }
func (r *imageRow) Tag() string        { return r.tag }
func (r *imageRow) Digest() string     { return r.digest }

// CreatedSince is empty for images whose builder left the time out.
func (r *imageRow) CreatedSince() string {
	if r.i.Created <= 0 {
		return ""
	}
	return units.HumanDuration(time.Since(time.Unix(r.i.Created, 0))) + " ago"
}

func (r *imageRow) CreatedAt() string   { return time.Unix(r.i.Created, 0).String() }
func (r *imageRow) Size() string        { return units.HumanSizeWithPrecision(float64(r.i.Size), 3) }
func (r *imageRow) VirtualSize() string { return units.HumanSize(float64(r.i.Size)) }

func (r *imageRow) Containers() string {
	if r.i.Containers == -1 {
		return "N/A"
	}
	return strconv.FormatInt(r.i.Containers, 10)
}

func (r *imageRow) SharedSize() string {
	if r.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.i.SharedSize))
}

func (r *imageRow) UniqueSize() string {
	if r.i.Size == -1 || r.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.i.Size - r.i.SharedSize))
}

// imagePath is the API's path of what is done to an image.
func imagePath(ref, action string) string {
	if action == "" {
		return "/images/" + ref
	}
	return fmt.Sprintf("/images/%s/%s", ref, action)
}
