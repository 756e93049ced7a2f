package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

// imageDiff is the answer of GET /images/diff, which is Gantry's own.
type imageDiff struct {
	From, To diffImage
	Files    []diffFile
	Config   []diffConfig
	Summary  struct {
		Added, Changed, Removed  int
		BytesAdded, BytesRemoved int64
	}
}

type diffImage struct {
	Ref, ID string
	Created time.Time
	Size    int64
	Layers  []struct {
		DiffID, CreatedBy string
		Size              int64
		Shared            bool
	}
}

type diffFile struct {
	Path, Kind string
	What       []string
	Old, New   *diffNode
}

type diffNode struct {
	Type  string
	Mode  uint32
	Size  int64
	Layer int
}

type diffConfig struct {
	Field, Key string
	Old, New   any
}

func (a *app) imageDiffCommand() *cobra.Command {
	var text string
	var noTrunc bool
	cmd := &cobra.Command{
		Use:   "diff [OPTIONS] IMAGE IMAGE",
		Short: "Show what makes the second image differ from the first",
		Long:  "Show what makes the second image differ from the first: files that were added, changed and removed,\nin which layer, and settings of the configuration.",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"from": {args[0]}, "to": {args[1]}}
			var raw json.RawMessage
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: "/images/diff", Query: q}, &raw); err != nil {
				return err
			}
			var d imageDiff
			return a.showAnswer(raw, text, &d, func() error {
				w := bufio.NewWriter(a.out)
				if err := d.print(w, !noTrunc); err != nil {
					return err
				}
				return w.Flush()
			})
		},
		ValidArgsFunction: a.completeImages(2),
	}
	fs := cmd.Flags()
	fs.StringVar(&text, "format", "", "Format output using a custom template:\n'table':            Print tables of layers, files and settings (default)\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	return cmd
}

func (d *imageDiff) print(w io.Writer, trunc bool) error {
	if len(d.Files) == 0 && len(d.Config) == 0 {
		fmt.Fprintln(w, "No differences.")
		return nil
	}
	err := format.Rows(w, "table {{.Image}}\t{{.Layer}}\t{{.Size}}\t{{.CreatedBy}}", format.Header{
		"Image": "IMAGE", "Layer": "LAYER", "Size": "SIZE", "CreatedBy": "CREATED BY",
	}, d.layerRows(trunc))
	if err == nil && len(d.Files) > 0 {
		fmt.Fprintln(w)
		rows := make([]*diffFileRow, len(d.Files))
		for i := range d.Files {
			rows[i] = &diffFileRow{&d.Files[i]}
		}
		err = format.Rows(w, "table {{.Kind}}\t{{.What}}\t{{.Size}}\t{{.Layer}}\t{{.Path}}", format.Header{
			"Kind": "FILE", "What": "WHAT", "Size": "SIZE", "Layer": "LAYER", "Path": "PATH",
		}, rows)
	}
	if err == nil && len(d.Config) > 0 {
		fmt.Fprintln(w)
		rows := make([]*diffConfigRow, len(d.Config))
		for i := range d.Config {
			rows[i] = &diffConfigRow{&d.Config[i], trunc}
		}
		err = format.Rows(w, "table {{.Kind}}\t{{.Setting}}\t{{.From}}\t{{.To}}", format.Header{
			"Kind": "CONFIG", "Setting": "SETTING", "From": "FROM", "To": "TO",
		}, rows)
	}
	s := &d.Summary
	fmt.Fprintf(w, "\n%d added, %d changed, %d removed: +%s -%s\n", s.Added, s.Changed, s.Removed,
		units.HumanSizeWithPrecision(float64(s.BytesAdded), 3), units.HumanSizeWithPrecision(float64(s.BytesRemoved), 3))
	return err
}

// layerRows lists what both images have, and then what only one has.
func (d *imageDiff) layerRows(trunc bool) []*diffLayerRow {
	var rows []*diffLayerRow
	add := func(image string, i *diffImage, shared bool) {
		for n := range i.Layers {
			if l := &i.Layers[n]; l.Shared == shared {
				rows = append(rows, &diffLayerRow{image, n, l.Size, l.CreatedBy, trunc})
			}
		}
	}
	add("both", &d.To, true)
	add(d.From.Ref, &d.From, false)
	add(d.To.Ref, &d.To, false)
	return rows
}

// diffLayerRow is a layer of one of the images, or of both. Layers are counted
// from 1, the lowest.
type diffLayerRow struct {
	image     string
	index     int
	size      int64
	createdBy string
	trunc     bool
}

func (r *diffLayerRow) IsRow() bool   { return true }
func (r *diffLayerRow) Image() string { return r.image }
func (r *diffLayerRow) Layer() string { return strconv.Itoa(r.index + 1) }
func (r *diffLayerRow) Size() string {
	return units.HumanSizeWithPrecision(float64(r.size), 3)
}

func (r *diffLayerRow) CreatedBy() string {
	by := strings.Join(strings.Fields(r.createdBy), " ")
	if r.trunc {
		return format.Ellipsis(by, 45)
	}
	return by
}

// diffFileRow is a path that is not the same in both images.
type diffFileRow struct{ f *diffFile }

func (r *diffFileRow) IsRow() bool  { return true }
func (r *diffFileRow) Kind() string { return r.f.Kind }
func (r *diffFileRow) Path() string { return r.f.Path }

// What says what of a file changed; the type of what came or went.
func (r *diffFileRow) What() string {
	if len(r.f.What) > 0 {
		return strings.Join(r.f.What, ",")
	}
	if n := r.node(); n != nil {
		return n.Type
	}
	return ""
}

func (r *diffFileRow) node() *diffNode {
	if r.f.New != nil {
		return r.f.New
	}
	return r.f.Old
}

// Size shows both when it changed.
func (r *diffFileRow) Size() string {
	size := func(n *diffNode) string { return units.HumanSizeWithPrecision(float64(n.Size), 3) }
	old, now := r.f.Old, r.f.New
	switch {
	case old != nil && now != nil && old.Size != now.Size:
		return size(old) + " -> " + size(now)
	case r.node() != nil && r.node().Type == "file":
		return size(r.node())
	}
	return ""
}

// Layer is where the path was written, or, of one that is gone, had been.
func (r *diffFileRow) Layer() string {
	if n := r.node(); n != nil && n.Layer >= 0 {
		return strconv.Itoa(n.Layer + 1)
	}
	return ""
}

// diffConfigRow is a setting that is not the same in both configurations.
type diffConfigRow struct {
	c     *diffConfig
	trunc bool
}

func (r *diffConfigRow) IsRow() bool { return true }

func (r *diffConfigRow) Kind() string {
	switch {
	case r.c.Old == nil:
		return "added"
	case r.c.New == nil:
		return "removed"
	}
	return "changed"
}

func (r *diffConfigRow) Setting() string {
	if r.c.Key == "" {
		return r.c.Field
	}
	return r.c.Field + " " + r.c.Key
}

func (r *diffConfigRow) From() string { return r.value(r.c.Old) }
func (r *diffConfigRow) To() string   { return r.value(r.c.New) }

func (r *diffConfigRow) value(v any) string {
	text := ""
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		text = v
	default:
		text, _ = format.JSON(v) // it came as JSON
	}
	text = strings.Join(strings.Fields(text), " ")
	if r.trunc {
		return format.Ellipsis(text, 45)
	}
	return text
}
