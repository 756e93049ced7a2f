package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// help prints a command's help in the layout Docker's users know. It is code
// and not a template, because parsing templates costs more than most commands.
func (a *app) help(cmd *cobra.Command) {
	w := io.Writer(a.out)
	use := cmd.UseLine()
	fmt.Fprintf(w, "Usage:  %s\n", use)
	switch {
	case cmd.Long != "":
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(cmd.Long))
	case cmd.Short != "":
		fmt.Fprintf(w, "\n%s\n", cmd.Short)
	}
	if names := aliasesOf(cmd); len(names) > 1 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(names, ", "))
	}
	if !cmd.HasParent() {
		a.helpRoot(w, cmd)
		return
	}
	if cmd.HasAvailableSubCommands() {
		list(w, "Commands", cmd.Commands())
	}
	a.helpFlags(w, "Options", cmd)
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
}

func (a *app) helpRoot(w io.Writer, root *cobra.Command) {
	var common, management, other []*cobra.Command
	for _, name := range commonCommands() {
		for _, c := range root.Commands() {
			if c.Name() == name {
				common = append(common, c)
			}
		}
	}
	for _, c := range root.Commands() {
		switch {
		case slices.Contains(common, c) || c.Hidden || c.Name() == "help":
		case c.HasSubCommands() || !isBuiltin(c.Name()):
			management = append(management, c)
		default:
			other = append(other, c)
		}
	}
	list(w, "Common Commands", common)
	list(w, "Management Commands", management)
	list(w, "Commands", other)
	if plugins := a.describePlugins(); len(plugins) > 0 {
		fmt.Fprintf(w, "\nPlugins:\n")
		for _, p := range plugins {
			fmt.Fprintf(w, "  %-12s%s\n", p.Name, p.ShortDescription)
		}
	}
	a.helpFlags(w, "Global Options", root)
	fmt.Fprintf(w, "\nRun 'gantry COMMAND --help' for more information on a command.\n")
}

func list(w io.Writer, title string, cmds []*cobra.Command) {
	if len(cmds) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, c := range cmds {
		if !c.Hidden {
			fmt.Fprintf(w, "  %-12s%s\n", c.Name(), c.Short)
		}
	}
}

func (a *app) helpFlags(w io.Writer, title string, cmd *cobra.Command) {
	fs := cmd.LocalFlags()
	if h := fs.Lookup("help"); h != nil && h.Shorthand != "" {
		h.Hidden = true
	}
	width := 80
	if n, _, err := term.GetSize(int(a.out.Fd())); err == nil && n > 40 {
		width = n
	}
	if text := fs.FlagUsagesWrapped(width - 1); strings.TrimSpace(text) != "" {
		fmt.Fprintf(w, "\n%s:\n%s", title, text)
	}
}

// aliasesOf lists every way to call a command.
func aliasesOf(cmd *cobra.Command) []string {
	if !cmd.HasParent() || cmd.HasSubCommands() {
		return nil
	}
	var names []string
	for _, path := range samePaths(cmd) {
		names = append(names, "gantry "+path)
	}
	return names
}
