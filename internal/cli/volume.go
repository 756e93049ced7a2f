package cli

import (
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

func (a *app) volumeCreateCommand() *cobra.Command {
	var driver, name string
	var opts runflags.Map
	labels := runflags.NewList(runflags.CheckLabel)
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if name != "" {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				name = args[0]
			}
			req := volume.CreateRequest{Name: name, Driver: driver, DriverOpts: opts.Values(), Labels: runflags.Pairs(labels.Values())}
			var v volume.Volume
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodPost, Path: "/volumes/create", JSON: req}, &v); err != nil {
				return err
			}
			fmt.Fprintln(a.out, v.Name)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&driver, "driver", "d", "local", "Specify volume driver name")
	fs.StringVar(&name, "name", "", "Specify volume name")
	fs.Lookup("name").Hidden = true
	fs.VarP(&opts, "opt", "o", "Set driver specific options")
	fs.Var(labels, "label", "Set metadata for a volume")
	return cmd
}

func (a *app) volumeRmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm [OPTIONS] VOLUME [VOLUME...]",
		Short: "Remove one or more volumes",
		Long:  "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if force {
				q.Set("force", "1")
			}
			var errs []error
			for _, name := range args {
				if err := a.json(cmd.Context(), &client.Request{Method: client.MethodDelete, Path: "/volumes/" + name, Query: q}, nil); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(a.out, name)
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: a.completeVolumes(),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

func (a *app) volumeLsCommand() *cobra.Command {
	var quiet bool
	var text string
	var filter filters
	cmd := &cobra.Command{
		Use:   "ls [OPTIONS]",
		Short: "List volumes",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list volume.ListResponse
			if err := a.json(cmd.Context(), &client.Request{Method: client.MethodGet, Path: "/volumes", Query: filter.query(url.Values{})}, &list); err != nil {
				return err
			}
			if text == "" && !quiet {
				text = a.config().VolumesFormat
			}
			rows := make([]*volumeRow, len(list.Volumes))
			for i := range list.Volumes {
				rows[i] = &volumeRow{&list.Volumes[i]}
			}
			slices.SortFunc(rows, func(x, y *volumeRow) int { return byName(x.v.Name, y.v.Name) })
			return format.Rows(a.out, volumeFormat(text, quiet), volumeHeader(), rows)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	fs.StringVar(&text, "format", "", format.Help)
	fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	return cmd
}

// byName compares as a person would: web2 before web10.
func byName(a, b string) int {
	switch {
	case format.NaturalLess(a, b):
		return -1
	case format.NaturalLess(b, a):
		return 1
	}
	return 0
}

func volumeFormat(text string, quiet bool) string {
	switch {
	case text == "raw" && quiet:
		return "name: {{.Name}}"
	case text == "raw":
		return "name: {{.Name}}\ndriver: {{.Driver}}\n"
	case text != "" && text != "table":
		return text
	case quiet:
		return "{{.Name}}"
	}
	return "table {{.Driver}}\t{{.Name}}"
}

func volumeHeader() format.Header {
	return format.Header{
		"Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT",
		"Labels": "LABELS", "Links": "LINKS", "Size": "SIZE", "Availability": "AVAILABILITY",
		"Group": "GROUP", "Status": "STATUS",
	}
}

type volumeRow struct{ v *volume.Volume }

func (r *volumeRow) IsRow() bool        { return true }
func (r *volumeRow) Name() string       { return r.v.Name }
func (r *volumeRow) Driver() string     { return r.v.Driver }
func (r *volumeRow) Scope() string      { return r.v.Scope }
func (r *volumeRow) Mountpoint() string { return r.v.Mountpoint }
func (r *volumeRow) Labels() string     { return labelList(r.v.Labels) }

// Label is the value of one label.
func (r *volumeRow) Label(name string) string { return r.v.Labels[name] }

func (r *volumeRow) Links() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return fmt.Sprint(r.v.UsageData.RefCount)
}

func (r *volumeRow) Size() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return units.HumanSize(float64(r.v.UsageData.Size))
}

// Group, Availability and Status are about cluster volumes, which only swarms
// have.
func (r *volumeRow) Group() string        { return "N/A" }
func (r *volumeRow) Availability() string { return "N/A" }
func (r *volumeRow) Status() string       { return "N/A" }
