package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

// versions is what templates of `version` see.
type versions struct {
	Client clientVersion
	Server *system.VersionResponse
}

type clientVersion struct {
	Platform          *system.PlatformInfo `json:",omitempty"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os, Arch          string
	BuildTime         string `json:",omitempty"`
	Context           string
}

func (a *app) versionCommand() *cobra.Command {
	return about("version", "Show the version information of client and engine", a.version)
}

// about builds a command that tells of the client and the engine, as text or
// through a template.
func about(name, short string, tell func(ctx context.Context, text string) error) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:               name + " [OPTIONS]",
		Short:             short,
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return tell(cmd.Context(), text) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", format.InspectHelp)
	return cmd
}

// version prints the client's half even when the engine does not answer.
func (a *app) version(ctx context.Context, text string) error {
	var server system.VersionResponse
	err := a.json(ctx, &client.Request{Method: client.MethodGet, Path: "/version"}, &server)
	api := client.Version
	if a.engine != nil {
		api = a.engine.APIVersion()
	}
	v := versions{Client: clientVersion{
		Version: Version, APIVersion: api, DefaultAPIVersion: client.Version, GitCommit: Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
		BuildTime: shortDate(BuildTime), Context: "default",
	}}
	if err == nil {
		v.Server = &server
		addEngine(&server)
	}
	if text == "" {
		return errors.Join(printVersions(a.out, &v), err)
	}
	return errors.Join(a.oneObject(text, &v), err)
}

// oneObject prints v through a template, or as JSON.
func (a *app) oneObject(text string, v any) error {
	if text == "json" {
		text = "{{json .}}"
	}
	tmpl, err := format.Parse(text)
	if err != nil {
		return &exitError{code: 64, err: err}
	}
	err = tmpl.Execute(a.out, v)
	fmt.Fprintln(a.out)
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	return nil
}

// addEngine completes the answer of engines that list no components.
func addEngine(v *system.VersionResponse) {
	for i := range v.Components {
		if v.Components[i].Name == "Engine" {
			if d := v.Components[i].Details; d != nil && d["BuildTime"] != "" {
				d["BuildTime"] = shortDate(d["BuildTime"])
			}
			return
		}
	}
	v.Components = append(v.Components, system.ComponentVersion{
		Name: "Engine", Version: v.Version,
		Details: map[string]string{
			"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "GitCommit": v.GitCommit,
			"GoVersion": v.GoVersion, "Os": v.Os, "Arch": v.Arch, "BuildTime": shortDate(v.BuildTime),
			"Experimental": strconv.FormatBool(v.Experimental),
		},
	})
}

func shortDate(s string) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.ANSIC)
	}
	return s
}

func printVersions(out io.Writer, v *versions) error {
	w := format.NewTable(out, 20, 1)
	c := &v.Client
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s", c.Version, c.APIVersion)
	if c.APIVersion != c.DefaultAPIVersion {
		fmt.Fprintf(w, " (downgraded from %s)", c.DefaultAPIVersion)
	}
	fmt.Fprintf(w, "\n Go version:\t%s\n Git commit:\t%s\n Built:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
		c.GoVersion, c.GitCommit, c.BuildTime, c.Os, c.Arch, c.Context)
	if s := v.Server; s != nil {
		fmt.Fprint(w, "\nServer:")
		if s.Platform.Name != "" {
			fmt.Fprint(w, " ", s.Platform.Name)
		}
		fmt.Fprintln(w)
		for _, comp := range s.Components {
			printComponent(w, &comp)
		}
	}
	return w.Flush()
}

func printComponent(w io.Writer, c *system.ComponentVersion) {
	fmt.Fprintf(w, " %s:\n  Version:\t%s\n", c.Name, c.Version)
	d := c.Details
	if c.Name != "Engine" {
		for _, k := range slices.Sorted(maps.Keys(d)) {
			fmt.Fprintf(w, "  %s:\t%s\n", k, d[k])
		}
		return
	}
	fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n", d["ApiVersion"], d["MinAPIVersion"])
	fmt.Fprintf(w, "  Go version:\t%s\n  Git commit:\t%s\n  Built:\t%s\n", d["GoVersion"], d["GitCommit"], d["BuildTime"])
	fmt.Fprintf(w, "  OS/Arch:\t%s/%s\n  Experimental:\t%s\n", d["Os"], d["Arch"], d["Experimental"])
}
