package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

func (a *app) searchCommand() *cobra.Command {
	var noTrunc bool
	var limit int
	var text string
	var filter filters
	cmd := &cobra.Command{
		Use:   "search [OPTIONS] TERM",
		Short: "Search a registry for images",
		Long:  "Search a registry for images.\nThe registry is Docker Hub, or the first part of TERM: HOST[:PORT]/TERM.",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if filter["is-automated"] != nil {
				fmt.Fprintln(a.err, `WARNING: the "is-automated" filter is deprecated, and searching for "is-automated=true" will not yield any results in future.`)
			}
			q := url.Values{"term": {args[0]}}
			if limit > 0 {
				q.Set("limit", strconv.Itoa(limit))
			}
			var found []registry.SearchResult
			if err := a.json(cmd.Context(), &client.Request{
				Method: client.MethodGet, Path: "/images/search", Query: filter.query(q), Header: a.registryAuthIfAny(searchDomain(args[0])),
			}, &found); err != nil {
				return err
			}
			rows := make([]*searchRow, len(found))
			for i := range found {
				rows[i] = &searchRow{&found[i], !noTrunc, text == "json"}
			}
			if text == "" || text == "table" {
				text = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
			}
			return format.Rows(a.out, text, format.Header{
				"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL",
			}, rows)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.IntVar(&limit, "limit", 0, "Max number of search results")
	fs.StringVar(&text, "format", "", format.Help)
	return cmd
}

// searchDomain is the registry a search goes to: a term is no image's name, but
// its first part may be a host as there.
func searchDomain(term string) string {
	if first, _, ok := strings.Cut(term, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first
	}
	return "docker.io"
}

// searchRow is a repository that was found.
type searchRow struct {
	r     *registry.SearchResult
	trunc bool
	json  bool
}

func (r *searchRow) IsRow() bool { return true }

func (r *searchRow) Name() string { return r.r.Name }

func (r *searchRow) Description() string {
	text := strings.NewReplacer("\n", " ", "\r", " ").Replace(r.r.Description)
	if r.trunc {
		return format.Ellipsis(text, 45)
	}
	return text
}

func (r *searchRow) StarCount() string { return strconv.Itoa(r.r.StarCount) }

func (r *searchRow) IsOfficial() string {
	switch {
	case r.json:
		return strconv.FormatBool(r.r.IsOfficial)
	case r.r.IsOfficial:
		return "[OK]"
	}
	return ""
}
