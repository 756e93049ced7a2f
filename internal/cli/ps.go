package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

type psFlags struct {
	quiet, size, all, noTrunc, latest bool
	last                              int
	format                            string
	filter                            filters
}

func (a *app) psCommand() *cobra.Command {
	var f psFlags
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS]",
		Short: "List containers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.ps(cmd, &f) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVarP(&f.size, "size", "s", false, "Display total file sizes")
	fs.BoolVarP(&f.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&f.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.IntVarP(&f.last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.StringVar(&f.format, "format", "", format.Help)
	fs.VarP(&f.filter, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

func (a *app) ps(cmd *cobra.Command, f *psFlags) error {
	if f.format == "" {
		f.format = a.config().PsFormat
	} else if f.quiet {
		fmt.Fprintln(a.err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
	}
	if f.latest && f.last == -1 {
		f.last = 1
	}
	// Sizes cost the engine a walk over the files: they are asked for only when
	// the format shows them.
	if !f.quiet && !cmd.Flags().Changed("size") && usesField(f.format, "Size") {
		f.size = true
	}
	q := url.Values{}
	if f.all {
		q.Set("all", "1")
	}
	if f.last > 0 {
		q.Set("limit", strconv.Itoa(f.last))
	}
	if f.size {
		q.Set("size", "1")
	}
	var list []container.Summary
	if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: "/containers/json", Query: f.filter.query(q)}, &list); err != nil {
		return err
	}
	rows := make([]*containerRow, len(list))
	for i := range list {
		rows[i] = &containerRow{c: &list[i], trunc: !f.noTrunc}
	}
	return format.Rows(a.out, f.text(), containerHeader(), rows)
}

// text chooses the format.
func (f *psFlags) text() string {
	switch {
	case f.quiet && f.format == "raw":
		return "container_id: {{.ID}}"
	case f.quiet:
		return "{{.ID}}"
	case f.format == "raw":
		return rawContainer(f.size)
	case f.format != "" && f.format != "table":
		return f.format
	}
	table := "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
	if f.size {
		table += "\t{{.Size}}"
	}
	return table
}

func rawContainer(size bool) string {
	s := `container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
`
	if size {
		s += "size: {{.Size}}\n"
	}
	return s
}

// usesField says whether a template reads the field, by name: a template that
// prints whole rows reads them all.
func usesField(text, field string) bool {
	return strings.Contains(text, "."+field) || strings.Contains(text, "json .}}") || strings.Contains(text, "json . ")
}
