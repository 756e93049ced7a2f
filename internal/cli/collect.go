package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

// collection is the answer of POST /system/collect, which is Gantry's own.
type collection struct {
	DryRun, Enabled                                    bool
	Of                                                 string // filesystem or images
	Used, Total, High, Low, Partials, Reclaimed, Short int64
	Images                                             []collected
}

type collected struct {
	ID       string
	Names    []string
	LastUsed time.Time
	Size     int64
}

func (a *app) collectCommand() *cobra.Command {
	var dryRun, force bool
	var high, low, text string
	cmd := &cobra.Command{
		Use:   "collect [OPTIONS]",
		Short: "Remove the images used least recently when the disk is full",
		Long: `Remove the images used least recently, that no container needs, when the disk is
fuller than the high watermark, until it is at the low one. The engine does so by
itself when it is started with --image-gc-high.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !dryRun && !force {
				ok, err := a.confirm(cmd.Context(), "WARNING! This will remove images without a container, the ones used least recently first, until the disk is at its low watermark.\nAre you sure you want to continue?")
				if err != nil || !ok {
					return err
				}
			}
			q := url.Values{}
			if dryRun {
				q.Set("dry-run", "1")
			}
			for name, level := range map[string]string{"high": high, "low": low} {
				if level != "" {
					q.Set(name, level)
				}
			}
			var raw json.RawMessage
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodPost, Path: "/system/collect", Query: q}, &raw); err != nil {
				return err
			}
			var c collection
			return a.showAnswer(raw, text, &c, func() error { return c.print(a.out) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVar(&dryRun, "dry-run", false, "Only show what would be removed")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.StringVar(&high, "high", "", `High watermark instead of the engine's: "85%" of the file system, or "50GB" of images`)
	fs.StringVar(&low, "low", "", "Low watermark instead of the engine's (default nine tenths of the high one)")
	fs.StringVar(&text, "format", "", format.InspectHelp)
	return cmd
}

func (c *collection) print(w io.Writer) error {
	size := func(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	of := "images take " + size(c.Used)
	if c.Of == "filesystem" {
		of = fmt.Sprintf("%s of %s are in use", size(c.Used), size(c.Total))
	}
	switch {
	case !c.Enabled:
		fmt.Fprintln(w, "The engine has no watermarks, and none were given: there is nothing to collect for. See --high.")
		return nil
	case c.Used <= c.High:
		fmt.Fprintf(w, "Nothing to collect: %s, collection begins above %s.\n", of, size(c.High))
		return nil
	}
	rows := make([]*collectedRow, len(c.Images))
	for i := range c.Images {
		rows[i] = &collectedRow{&c.Images[i]}
	}
	if len(rows) > 0 {
		err := format.Rows(w, "table {{.ID}}\t{{.Names}}\t{{.LastUsed}}\t{{.Size}}", format.Header{
			"ID": "IMAGE ID", "Names": "NAMES", "LastUsed": "LAST USED", "Size": "SIZE",
		}, rows)
		if err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if c.Partials > 0 {
		fmt.Fprintln(w, "Interrupted downloads:", size(c.Partials))
	}
	if c.DryRun {
		fmt.Fprintln(w, "Would reclaim:", size(c.Reclaimed))
	} else {
		fmt.Fprintln(w, "Total reclaimed space:", size(c.Reclaimed))
	}
	if c.Short > 0 {
		fmt.Fprintf(w, "The rest is in use: %s are missing to the low watermark of %s.\n", size(c.Short), size(c.Low))
	}
	return nil
}

// collectedRow is an image that went, or would go.
type collectedRow struct{ c *collected }

func (r *collectedRow) IsRow() bool { return true }
func (r *collectedRow) ID() string  { return format.ShortID(r.c.ID) }

func (r *collectedRow) Names() string {
	if len(r.c.Names) == 0 {
		return none
	}
	return strings.Join(r.c.Names, ", ")
}

func (r *collectedRow) LastUsed() string {
	if r.c.LastUsed.IsZero() {
		return "never"
	}
	return units.HumanDuration(time.Since(r.c.LastUsed)) + " ago"
}

func (r *collectedRow) Size() string { return units.HumanSizeWithPrecision(float64(r.c.Size), 3) }
