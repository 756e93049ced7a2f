package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

type systemPruneFlags struct {
	force, all, volumes bool
	filter              filters
}

func (a *app) systemPruneCommand() *cobra.Command {
	var f systemPruneFlags
	cmd := &cobra.Command{
		Use:               "prune [OPTIONS]",
		Short:             "Remove unused data",
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.systemPrune(cmd.Context(), &f) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.force, "force", "f", false, "Do not prompt for confirmation")
	fs.BoolVarP(&f.all, "all", "a", false, "Remove all unused images not just dangling ones")
	fs.BoolVar(&f.volumes, "volumes", false, "Prune anonymous volumes")
	fs.Var(&f.filter, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	return cmd
}

func (a *app) systemPrune(ctx context.Context, f *systemPruneFlags) error {
	if f.volumes && f.filter["until"] != nil {
		return errors.New(`ERROR: The "until" filter is not supported with "--volumes"`)
	}
	if !f.force {
		ok, err := a.confirm(ctx, a.systemPruneWarning(f))
		if err != nil || !ok {
			return err
		}
	}
	total := uint64(0)
	for _, p := range f.pruners() {
		freed, err := a.pruneNow(ctx, p)
		// Engines that have no such objects have no way to prune them.
		if err != nil && !(p.optional && client.IsNotFound(err)) {
			return err
		}
		total += freed
	}
	fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(total)))
	return nil
}

// pruners are in the order in which one makes the next's objects unused.
func (f *systemPruneFlags) pruners() []*pruner {
	cache := &pruner{path: "/build/prune", optional: true}
	cache.report = func(get func(any) error) (string, []string, uint64, error) {
		var r build.CachePruneReport
		err := get(&r)
		return "Deleted build cache objects:", r.CachesDeleted, r.SpaceReclaimed, err
	}
	if f.all {
		cache.query = url.Values{"all": {"1"}}
	}
	list := []*pruner{containerPruner(), networkPruner()}
	if f.volumes {
		list = append(list, volumePruner())
	}
	images := imagePruner()
	list = append(list, images, cache)
	for _, p := range list {
		for name, values := range f.filter {
			for v := range values {
				p.filter.add(name, v)
			}
		}
	}
	images.filter.add("dangling", strconv.FormatBool(!f.all))
	return list
}

func (a *app) systemPruneWarning(f *systemPruneFlags) string {
	lines := []string{"all stopped containers", "all networks not used by at least one container"}
	if f.volumes {
		lines = append(lines, "all anonymous volumes not used by at least one container")
	}
	if f.all {
		lines = append(lines, "all images without at least one container associated to them", "all build cache")
	} else {
		lines = append(lines, "all dangling images", "unused build cache")
	}
	text := "WARNING! This will remove:\n  - " + strings.Join(lines, "\n  - ") + "\n"
	chosen := filters{}
	for name, values := range f.filter {
		chosen[name] = maps.Clone(values)
	}
	a.addPruneFilters(&chosen)
	var shown []string
	for _, name := range []string{"label", "label!", "until"} {
		for v := range chosen[name] {
			shown = append(shown, name+"="+v)
		}
	}
	if len(shown) > 0 {
		slices.SortFunc(shown, byName)
		text += "\n  Items to be pruned will be filtered with:\n  - " + strings.Join(shown, "\n  - ") + "\n"
	}
	return text + "\nAre you sure you want to continue?"
}

// systemDialCommand carries bytes between its own streams and the engine's
// socket: what ssh starts on the far side of an ssh:// host.
func (a *app) systemDialCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "dial-stdio",
		Short:  "Proxy the stdio stream to the engine connection",
		Args:   noArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.Relay(cmd.Context(), a.in, a.out)
		},
	}
}
