package cli

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

func anyState(string) bool { return true }
func isRunning(state string) bool {
	return state == string(container.StateRunning) || isPaused(state)
}
func isPaused(state string) bool { return state == string(container.StatePaused) }

// completion says which words may come next. It never starts an engine, and an
// engine that does not answer has no words.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

func (a *app) complete(path string, q url.Values, out any) bool {
	a.global.noStart = true
	return a.json(completionContext(), &client.Request{Method: client.MethodGet, Path: path, Query: q}, out) == nil
}

func (a *app) completeContainers(fits func(state string) bool) completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var list []container.Summary
		if !a.complete("/containers/json", url.Values{"all": {"1"}}, &list) {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, c := range list {
			if !fits(string(c.State)) {
				continue
			}
			for _, n := range c.Names {
				names = append(names, strings.TrimPrefix(n, "/"))
			}
		}
		return without(names, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages completes the first limit arguments; all when it is negative.
func (a *app) completeImages(limit int) completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var list []image.Summary
		if limit >= 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveDefault
		}
		if !a.complete("/images/json", nil, &list) {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, i := range list {
			names = append(names, i.RepoTags...)
		}
		return without(names, args), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeVolumes() completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var list volume.ListResponse
		if !a.complete("/volumes", nil, &list) {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, v := range list.Volumes {
			names = append(names, v.Name)
		}
		return without(names, args), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeNetworks() completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var list []network.Summary
		if !a.complete("/networks", nil, &list) {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, n := range list {
			names = append(names, n.Name)
		}
		return without(names, args), cobra.ShellCompDirectiveNoFileComp
	}
}

func without(names, used []string) []string {
	out := names[:0]
	for _, n := range names {
		seen := false
		for _, u := range used {
			seen = seen || u == n
		}
		if !seen {
			out = append(out, n)
		}
	}
	return out
}

// completionContext bounds what a person waits for after pressing Tab.
func completionContext() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	context.AfterFunc(ctx, cancel)
	return ctx
}
