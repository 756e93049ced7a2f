package cli

import (
	"net/url"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

func (a *app) networkLsCommand() *cobra.Command {
	var quiet, noTrunc bool
	var text string
	var filter filters
	cmd := &cobra.Command{
		Use:   "ls [OPTIONS]",
		Short: "List networks",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []network.Summary
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: "/networks", Query: filter.query(url.Values{})}, &list); err != nil {
				return err
			}
			if text == "" && !quiet {
				text = a.config().NetworksFormat
			}
			rows := make([]*networkRow, len(list))
			for i := range list {
				rows[i] = &networkRow{&list[i], !noTrunc}
			}
			slices.SortFunc(rows, func(x, y *networkRow) int { return byName(x.n.Name, y.n.Name) })
			return format.Rows(a.out, networkFormat(text, quiet), format.Header{
				"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4",
				"IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
			}, rows)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	fs.StringVar(&text, "format", "", format.Help)
	fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	return cmd
}

func networkFormat(text string, quiet bool) string {
	switch {
	case text == "raw" && quiet:
		return "network_id: {{.ID}}"
	case text == "raw":
		return "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"
	case text != "" && text != "table":
		return text
	case quiet:
		return "{{.ID}}"
	}
	return "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
}

type networkRow struct {
	n     *network.Summary
	trunc bool
}

func (r *networkRow) IsRow() bool { return true }

func (r *networkRow) ID() string {
	if r.trunc {
		return format.ShortID(r.n.ID)
	}
	return r.n.ID
}

func (r *networkRow) Name() string      { return r.n.Name }
func (r *networkRow) Driver() string    { return r.n.Driver }
func (r *networkRow) Scope() string     { return r.n.Scope }
func (r *networkRow) IPv4() string      { return strconv.FormatBool(r.n.EnableIPv4) }
func (r *networkRow) IPv6() string      { return strconv.FormatBool(r.n.EnableIPv6) }
func (r *networkRow) Internal() string  { return strconv.FormatBool(r.n.Internal) }
func (r *networkRow) Labels() string    { return labelList(r.n.Labels) }
func (r *networkRow) CreatedAt() string { return r.n.Created.String() }

// Label is the value of one label.
func (r *networkRow) Label(name string) string { return r.n.Labels[name] }

func networkPruner() *pruner {
	p := &pruner{path: "/networks/prune", optional: true, noSpace: true}
	p.report = func(get func(any) error) (string, []string, uint64, error) {
		var r network.PruneReport
		err := get(&r)
		return "Deleted Networks:", r.NetworksDeleted, 0, err
	}
	return p
}

func (a *app) networkPruneCommand() *cobra.Command {
	return a.pruneCommand(networkPruner(), "Remove all unused networks", "all custom networks not used by at least one container")
}
