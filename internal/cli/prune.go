package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// pruner is what the prune commands share.
type pruner struct {
	path     string
	query    url.Values // beside the filters
	filter   filters
	force    bool
	optional bool // an engine may not have this
	noSpace  bool // what goes takes none
	// report reads the answer: a heading, the lines below it, and bytes freed.
	report func(get func(any) error) (heading string, lines []string, freed uint64, err error)
}

func (p *pruner) addFlags(cmd *cobra.Command, example string) {
	cmd.Flags().BoolVarP(&p.force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&p.filter, "filter", fmt.Sprintf("Provide filter values (e.g. %q)", example))
}

func (a *app) prune(ctx context.Context, p *pruner, warning string) error {
	if !p.force {
		ok, err := a.confirm(ctx, "WARNING! This will remove "+warning+".\nAre you sure you want to continue?")
		if err != nil || !ok {
			return err
		}
	}
	freed, err := a.pruneNow(ctx, p)
	if err != nil || p.noSpace {
		return err
	}
	fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(freed)))
	return nil
}

// pruneNow prints what went and returns the bytes freed.
func (a *app) pruneNow(ctx context.Context, p *pruner) (uint64, error) {
	a.addPruneFilters(&p.filter)
	heading, lines, freed, err := p.report(func(out any) error {
		q := url.Values{}
		maps.Copy(q, p.query)
		return a.json(ctx, &client.Request{Method: client.MethodPost, Path: p.path, Query: p.filter.query(q)}, out)
	})
	if err != nil || len(lines) == 0 {
		return 0, err
	}
	fmt.Fprintf(a.out, "%s\n%s\n\n", heading, strings.Join(lines, "\n"))
	return freed, nil
}

// addPruneFilters adds those of the configuration file, unless the command line
// asks for the opposite.
func (a *app) addPruneFilters(f *filters) {
	opposite := map[string]string{"label": "label!", "label!": "label"}
	for _, line := range a.config().PruneFilters {
		name, value, ok := strings.Cut(line, "=")
		if !ok || (*f)[opposite[name]][value] {
			continue
		}
		f.add(name, value)
	}
}

// confirm asks on the output and takes y or yes for an answer.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.out, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case s := <-answer:
		return s == "y" || s == "yes", nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

func containerPruner() *pruner {
	p := &pruner{path: "/containers/prune"}
	p.report = func(get func(any) error) (string, []string, uint64, error) {
		var r container.PruneReport
		err := get(&r)
		return "Deleted Containers:", r.ContainersDeleted, r.SpaceReclaimed, err
	}
	return p
}

func (a *app) containerPruneCommand() *cobra.Command {
	return a.pruneCommand(containerPruner(), "Remove all stopped containers", "all stopped containers")
}

// pruneCommand is a prune that takes no more than filters.
func (a *app) pruneCommand(p *pruner, short, warning string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: short,
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.prune(cmd.Context(), p, warning) },
	}
	p.addFlags(cmd, "until=<timestamp>")
	return cmd
}

func imagePruner() *pruner {
	p := &pruner{path: "/images/prune"}
	p.report = func(get func(any) error) (string, []string, uint64, error) {
		var r image.PruneReport
		err := get(&r)
		var lines []string
		for _, d := range r.ImagesDeleted {
			if d.Untagged != "" {
				lines = append(lines, "untagged: "+d.Untagged)
			} else {
				lines = append(lines, "deleted: "+d.Deleted)
			}
		}
		return "Deleted Images:", lines, r.SpaceReclaimed, err
	}
	return p
}

func (a *app) imagePruneCommand() *cobra.Command {
	var all bool
	p := imagePruner()
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused images",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.filter.add("dangling", strconv.FormatBool(!all))
			if all {
				return a.prune(cmd.Context(), p, "all images without at least one container associated to them")
			}
			return a.prune(cmd.Context(), p, "all dangling images")
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	p.addFlags(cmd, "until=<timestamp>")
	return cmd
}

func volumePruner() *pruner {
	p := &pruner{path: "/volumes/prune"}
	p.report = func(get func(any) error) (string, []string, uint64, error) {
		var r volume.PruneReport
		err := get(&r)
		return "Deleted Volumes:", r.VolumesDeleted, r.SpaceReclaimed, err
	}
	return p
}

func (a *app) volumePruneCommand() *cobra.Command {
	var all bool
	p := volumePruner()
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused local volumes",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !all {
				return a.prune(cmd.Context(), p, "anonymous local volumes not used by at least one container")
			}
			if p.filter["all"] != nil {
				return errors.New("conflicting options: cannot specify both --all and --filter all=1")
			}
			p.filter.add("all", "true")
			return a.prune(cmd.Context(), p, "all local volumes not used by at least one container")
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	p.addFlags(cmd, "label=<label>")
	return cmd
}
