package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

// diskUsage is the answer of GET /system/df up to API 1.51.
type diskUsage struct {
	LayersSize int64
	Images     []*image.Summary
	Containers []*container.Summary
	Volumes    []*volume.Volume
	BuildCache []*build.CacheRecord
}

func (a *app) dfCommand() *cobra.Command {
	var verbose bool
	var text string
	cmd := &cobra.Command{
		Use:   "df [OPTIONS]",
		Short: "Show disk usage of the engine",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var du diskUsage
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: "/system/df"}, &du); err != nil {
				return err
			}
			if verbose {
				return du.verbose(a.out, text)
			}
			return du.summary(a.out, text)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	fs.StringVar(&text, "format", "", format.Help)
	return cmd
}

func (du *diskUsage) summary(w io.Writer, text string) error {
	switch text {
	case "", "table":
		text = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
	case "raw":
		text = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n"
	}
	return format.Rows(w, text, format.Header{
		"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
	}, []*usageRow{du.imageUsage(), du.containerUsage(), du.volumeUsage(), du.cacheUsage()})
}

// usageRow is what one sort of object takes up.
type usageRow struct {
	kind              string
	total, active     int
	size, reclaimable int64
	noPercent         bool
}

func (r *usageRow) IsRow() bool        { return true }
func (r *usageRow) Type() string       { return r.kind }
func (r *usageRow) TotalCount() string { return strconv.Itoa(r.total) }
func (r *usageRow) Active() string     { return strconv.Itoa(r.active) }
func (r *usageRow) Size() string       { return units.HumanSize(float64(r.size)) }

func (r *usageRow) Reclaimable() string {
	text := units.HumanSize(float64(r.reclaimable))
	if r.size > 0 && !r.noPercent {
		text += fmt.Sprintf(" (%d%%)", r.reclaimable*100/r.size)
	}
	return text
}

// imageUsage counts what layers images share once. What only images without
// containers use can be had back.
func (du *diskUsage) imageUsage() *usageRow {
	r := &usageRow{kind: "Images", total: len(du.Images), size: du.LayersSize}
	used := int64(0)
	for _, i := range du.Images {
		if i.Containers > 0 {
			r.active++
		}
		if i.Containers != 0 && i.Size != -1 && i.SharedSize != -1 {
			used += i.Size - i.SharedSize
		}
	}
	r.reclaimable = r.size - used
	return r
}

func (du *diskUsage) containerUsage() *usageRow {
	r := &usageRow{kind: "Containers", total: len(du.Containers)}
	for _, c := range du.Containers {
		r.size += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			r.active++
		default:
			r.reclaimable += c.SizeRw
		}
	}
	return r
}

func (du *diskUsage) volumeUsage() *usageRow {
	r := &usageRow{kind: "Local Volumes", total: len(du.Volumes)}
	for _, v := range du.Volumes {
		u := v.UsageData
		if u == nil {
			continue
		}
		if u.RefCount > 0 {
			r.active++
		}
		if u.Size == -1 {
			continue
		}
		r.size += u.Size
		if u.RefCount == 0 {
			r.reclaimable += u.Size
		}
	}
	return r
}

func (du *diskUsage) cacheUsage() *usageRow {
	r := &usageRow{kind: "Build Cache", total: len(du.BuildCache), noPercent: true}
	for _, c := range du.BuildCache {
		if c.InUse {
			r.active++
		}
		if c.Shared {
			continue
		}
		r.size += c.Size
		if !c.InUse {
			r.reclaimable += c.Size
		}
	}
	return r
}

// usageDetails is what templates of `system df -v` see.
type usageDetails struct {
	Images     []*imageRow
	Containers []*containerRow
	Volumes    []*volumeRow
	BuildCache []*cacheRow
}

// In JSON a row within a list is what it is by itself.

func (r *imageRow) MarshalJSON() ([]byte, error)     { return json.Marshal(format.Fields(r)) }
func (r *containerRow) MarshalJSON() ([]byte, error) { return json.Marshal(format.Fields(r)) }
func (r *volumeRow) MarshalJSON() ([]byte, error)    { return json.Marshal(format.Fields(r)) }
func (r *cacheRow) MarshalJSON() ([]byte, error)     { return json.Marshal(format.Fields(r)) }

func (du *diskUsage) details(trunc bool) *usageDetails {
	d := &usageDetails{[]*imageRow{}, []*containerRow{}, []*volumeRow{}, []*cacheRow{}}
	for _, i := range du.Images {
		row := &imageRow{i: i, repo: none, tag: none, trunc: trunc}
		if len(i.RepoTags) > 0 && !isDangling(i) {
			ref, err := parseRef(i.RepoTags[0])
			if err != nil {
				continue
			}
			row.repo, row.tag = ref.familiarName(), ref.tag
		}
		d.Images = append(d.Images, row)
	}
	for _, c := range du.Containers {
		c.SizeRootFs = 0 // the image's, which is listed by itself
		d.Containers = append(d.Containers, &containerRow{c, trunc})
	}
	for _, v := range du.Volumes {
		d.Volumes = append(d.Volumes, &volumeRow{v})
	}
	slices.SortFunc(du.BuildCache, compareCache)
	for _, c := range du.BuildCache {
		d.BuildCache = append(d.BuildCache, &cacheRow{c, trunc})
	}
	return d
}

// verbose lists every object. Its formats are the table, JSON, raw and
// templates over all four lists at once.
func (du *diskUsage) verbose(w io.Writer, text string) error {
	table := text == "" || text == "table"
	d := du.details(table || strings.HasPrefix(text, "table"))
	switch {
	case table:
		return du.tables(w, d)
	case text == "json":
		text = "{{json .}}"
	case text == "raw":
		text = "{{range .Images}}type: Image\n" + (&imagesFlags{format: "raw", digests: true}).text() + "\n{{end -}}" +
			"{{range .Containers}}type: Container\n" + rawContainer(true) + "\n{{end -}}" +
			"{{range .Volumes}}type: Volume\n" + volumeFormat("raw", false) + "\n{{end -}}" +
			"{{range .BuildCache}}type: Build Cache\n" + rawCache + "\n{{end -}}"
	}
	tmpl, err := format.Parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.TrimSpace(strings.TrimPrefix(text, "table"))))
	if err != nil {
		return err
	}
	if err := tmpl.Execute(w, d); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	return nil
}

func (du *diskUsage) tables(w io.Writer, d *usageDetails) error {
	fmt.Fprint(w, "Images space usage:\n\n")
	err := format.Rows(w, "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}", imageHeader(), d.Images)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	err = format.Rows(w, "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}", containerHeader(), d.Containers)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	err = format.Rows(w, "table {{.Name}}\t{{.Links}}\t{{.Size}}", volumeHeader(), d.Volumes)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBuild cache usage: %s\n\n", du.cacheUsage().Size())
	return format.Rows(w, "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}", cacheHeader(), d.BuildCache)
}
