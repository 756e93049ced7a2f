package cli

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

func (a *app) historyCommand() *cobra.Command {
	var human, quiet, noTrunc bool
	var text, platform string
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] IMAGE",
		Short: "Show the history of an image",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if err := addPlatforms(q, "platform", platform); err != nil {
				return err
			}
			var items []image.HistoryResponseItem
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: imagePath(args[0], "history"), Query: q}, &items); err != nil {
				return err
			}
			rows := make([]*historyRow, len(items))
			for i := range items {
				rows[i] = &historyRow{&items[i], !noTrunc, human}
			}
			return format.Rows(a.out, historyFormat(text, quiet, human), format.Header{
				"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
				"CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
			}, rows)
		},
		ValidArgsFunction: a.completeImages(1),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&text, "format", "", format.Help)
	fs.StringVar(&platform, "platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

func historyFormat(text string, quiet, human bool) string {
	switch {
	case text != "" && text != "table":
		return text
	case quiet:
		return "{{.ID}}"
	case human:
		return "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	}
	return "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
}

// historyRow is one step of an image's making.
type historyRow struct {
	h            *image.HistoryResponseItem
	trunc, human bool
}

func (r *historyRow) IsRow() bool { return true }

func (r *historyRow) ID() string {
	if r.trunc {
		return format.ShortID(r.h.ID)
	}
	return r.h.ID
}

func (r *historyRow) CreatedAt() string { return time.Unix(r.h.Created, 0).Format(time.RFC3339) }

// CreatedSince knows that reproducible builders write a time long before there
// were containers.
func (r *historyRow) CreatedSince() string {
	switch {
	case !r.human:
		return r.CreatedAt()
	case r.h.Created <= time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix():
		return "N/A"
	}
	return units.HumanDuration(time.Since(time.Unix(r.h.Created, 0))) + " ago"
}

func (r *historyRow) CreatedBy() string {
	by := strings.ReplaceAll(r.h.CreatedBy, "\t", " ")
	if r.trunc {
		return format.Ellipsis(by, 45)
	}
	return by
}

func (r *historyRow) Size() string {
	if r.human {
		return units.HumanSizeWithPrecision(float64(r.h.Size), 3)
	}
	return strconv.FormatInt(r.h.Size, 10)
}

func (r *historyRow) Comment() string { return r.h.Comment }
