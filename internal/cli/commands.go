package cli

import (
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
)

// entry is a row of the command table: where a command is found and how it is
// built. A row without build is a management command with children.
type entry struct {
	path    string // "ps", "container ls"
	aliases string // other names at the same place, separated by blanks
	build   func(*app) *cobra.Command
	short   string // of a management command
	program bool   // the command is a plugin that belongs to gantry
}

// commands is the table, made when it is first asked for: a variable cannot be made
// of what reads it.
func commands() []entry {
	table.Do(func() { table.rows = rows() })
	return table.rows
}

var table struct {
	sync.Once
	rows []entry
}

func rows() []entry {
	return []entry{
		{path: "run", build: (*app).runCommand},
		{path: "exec", build: (*app).execCommand},
		{path: "ps", build: (*app).psCommand},
		{path: "pull", build: (*app).pullCommand},
		{path: "push", build: (*app).pushCommand},
		{path: "images", build: (*app).imagesCommand},
		{path: "login", build: (*app).loginCommand},
		{path: "logout", build: (*app).logoutCommand},
		{path: "search", build: (*app).searchCommand},
		{path: "version", build: (*app).versionCommand},
		{path: "info", build: (*app).infoCommand},

		{path: "attach", build: (*app).attachCommand},
		{path: "cp", build: (*app).cpCommand},
		{path: "commit", build: (*app).commitCommand},
		{path: "create", build: (*app).createCommand},
		{path: "diff", build: (*app).diffCommand},
		{path: "events", build: (*app).eventsCommand},
		{path: "export", build: (*app).exportCommand},
		{path: "history", build: (*app).historyCommand},
		{path: "import", build: (*app).importCommand},
		{path: "inspect", build: (*app).inspectCommand},
		{path: "kill", build: (*app).killCommand},
		{path: "load", build: (*app).loadCommand},
		{path: "logs", build: (*app).logsCommand},
		{path: "pause", build: (*app).pauseCommand},
		{path: "port", build: (*app).portCommand},
		{path: "rename", build: (*app).renameCommand},
		{path: "restart", build: (*app).restartCommand},
		{path: "rm", aliases: "remove", build: (*app).rmCommand},
		{path: "rmi", build: (*app).rmiCommand},
		{path: "save", build: (*app).saveCommand},
		{path: "start", build: (*app).startCommand},
		{path: "stats", build: (*app).statsCommand},
		{path: "stop", build: (*app).stopCommand},
		{path: "tag", build: (*app).tagCommand},
		{path: "top", build: (*app).topCommand},
		{path: "unpause", build: (*app).unpauseCommand},
		{path: "update", build: (*app).updateCommand},
		{path: "wait", build: (*app).waitCommand},

		{path: "container", short: "Manage containers"},
		{path: "container attach", build: (*app).attachCommand},
		{path: "container commit", build: (*app).commitCommand},
		{path: "container cp", build: (*app).cpCommand},
		{path: "container create", build: (*app).createCommand},
		{path: "container diff", build: (*app).diffCommand},
		{path: "container exec", build: (*app).execCommand},
		{path: "container export", build: (*app).exportCommand},
		{path: "container inspect", build: (*app).containerInspectCommand},
		{path: "container kill", build: (*app).killCommand},
		{path: "container logs", build: (*app).logsCommand},
		{path: "container ls", aliases: "ps list", build: (*app).psCommand},
		{path: "container pause", build: (*app).pauseCommand},
		{path: "container port", build: (*app).portCommand},
		{path: "container prune", build: (*app).containerPruneCommand},
		{path: "container rename", build: (*app).renameCommand},
		{path: "container restart", build: (*app).restartCommand},
		{path: "container rm", aliases: "remove", build: (*app).rmCommand},
		{path: "container run", build: (*app).runCommand},
		{path: "container start", build: (*app).startCommand},
		{path: "container stats", build: (*app).statsCommand},
		{path: "container stop", build: (*app).stopCommand},
		{path: "container top", build: (*app).topCommand},
		{path: "container unpause", build: (*app).unpauseCommand},
		{path: "container update", build: (*app).updateCommand},
		{path: "container wait", build: (*app).waitCommand},

		{path: "image", short: "Manage images"},
		{path: "image diff", build: (*app).imageDiffCommand},
		{path: "image history", build: (*app).historyCommand},
		{path: "image import", build: (*app).importCommand},
		{path: "image inspect", build: (*app).imageInspectCommand},
		{path: "image load", build: (*app).loadCommand},
		{path: "image ls", aliases: "list", build: (*app).imagesCommand},
		{path: "image prune", build: (*app).imagePruneCommand},
		{path: "image pull", build: (*app).pullCommand},
		{path: "image push", build: (*app).pushCommand},
		{path: "image rm", aliases: "rmi remove", build: (*app).rmiCommand},
		{path: "image save", build: (*app).saveCommand},
		{path: "image tag", build: (*app).tagCommand},

		{path: "manifest", short: "Manage image manifests and manifest lists", program: true},

		{path: "network", short: "Manage networks"},
		{path: "network inspect", build: (*app).networkInspectCommand},
		{path: "network ls", aliases: "list", build: (*app).networkLsCommand},
		{path: "network prune", build: (*app).networkPruneCommand},

		{path: "registry", short: "Be a registry of images"},
		{path: "registry gc", build: (*app).registryGCCommand},
		{path: "registry serve", build: (*app).registryServeCommand},

		{path: "system", short: "Manage the engine"},
		{path: "system collect", build: (*app).collectCommand},
		{path: "system df", build: (*app).dfCommand},
		{path: "system dial-stdio", build: (*app).systemDialCommand},
		{path: "system events", build: (*app).eventsCommand},
		{path: "system info", build: (*app).infoCommand},
		{path: "system prune", build: (*app).systemPruneCommand},

		{path: "volume", short: "Manage volumes"},
		{path: "volume create", build: (*app).volumeCreateCommand},
		{path: "volume inspect", build: (*app).volumeInspectCommand},
		{path: "volume ls", aliases: "list", build: (*app).volumeLsCommand},
		{path: "volume prune", build: (*app).volumePruneCommand},
		{path: "volume rm", aliases: "remove", build: (*app).volumeRmCommand},
	}
}

func commonCommands() []string {
	return []string{"run", "exec", "ps", "pull", "push", "images", "login", "logout", "search", "version", "info"}
}

// isBuiltin says that a first argument needs no search for a plugin.
func isBuiltin(word string) bool {
	switch word {
	case "help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return true
	}
	return inTable(word)
}

func inTable(word string) bool {
	return slices.ContainsFunc(commands(), func(e entry) bool { return e.at("", word) && !e.program })
}

// at says whether the entry is called word below parent ("" is the top).
func (e entry) at(parent, word string) bool {
	prefix := parent
	if parent != "" {
		prefix += " "
	}
	name, ok := strings.CutPrefix(e.path, prefix)
	if !ok || strings.Contains(name, " ") {
		return false
	}
	return name == word || slices.Contains(strings.Fields(e.aliases), word)
}

func commandNames() []string {
	var names []string
	for _, e := range commands() {
		if !strings.Contains(e.path, " ") {
			names = append(names, e.path)
		}
	}
	return names
}

// addCommands adds the commands args lead to, or all of them when args lead to
// none: for help, completion and mistakes.
func (a *app) addCommands(root *cobra.Command, args []string) {
	all := commands()
	parents := map[string]*cobra.Command{"": root}
	wanted := a.wanted(all, args)
	for _, e := range all {
		parent, name := "", e.path
		if p, n, ok := strings.Cut(e.path, " "); ok {
			parent, name = p, n
		}
		if !wanted(parent, e) {
			continue
		}
		cmd := a.newCommand(e, name)
		if e.build == nil {
			parents[e.path] = cmd
		}
		parents[parent].AddCommand(cmd)
	}
}

// wanted narrows the table to the command named by the first two arguments.
func (a *app) wanted(all []entry, args []string) func(parent string, e entry) bool {
	everything := func(string, entry) bool { return true }
	if len(args) == 0 {
		return everything
	}
	i := slices.IndexFunc(all, func(e entry) bool { return e.at("", args[0]) })
	if i < 0 {
		return everything
	}
	top := all[i]
	if top.build != nil {
		return func(_ string, e entry) bool { return e.path == top.path }
	}
	child := -1
	if len(args) > 1 {
		child = slices.IndexFunc(all, func(e entry) bool { return e.at(top.path, args[1]) })
	}
	return func(parent string, e entry) bool {
		return e.path == top.path || parent == top.path && (child < 0 || e.path == all[child].path)
	}
}

func (a *app) newCommand(e entry, name string) *cobra.Command {
	if e.build == nil {
		return &cobra.Command{Use: name + " COMMAND", DisableFlagsInUseLine: true, Short: e.short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			a.help(cmd)
			return nil
		}}
	}
	cmd := e.build(a)
	_, rest, _ := strings.Cut(cmd.Use, " ")
	cmd.Use = strings.TrimSpace(name + " " + rest)
	cmd.Aliases = strings.Fields(e.aliases)
	cmd.DisableFlagsInUseLine = true
	return cmd
}

// samePaths lists the other ways to a command: "container ls", "ps".
func samePaths(cmd *cobra.Command) []string {
	path := strings.TrimPrefix(cmd.CommandPath(), "gantry ")
	return pathsOf(path)
}

// pathsOf finds the rows that build the same command as path.
func pathsOf(path string) []string {
	short := path
	if parent, name, ok := strings.Cut(path, " "); ok {
		short = topName(parent, name)
	}
	var out []string
	for _, e := range commands() {
		same := e.path
		parent := ""
		if p, name, ok := strings.Cut(e.path, " "); ok {
			same, parent = topName(p, name), p+" "
		}
		if e.build == nil || same != short {
			continue
		}
		out = append(out, e.path)
		for _, alias := range strings.Fields(e.aliases) {
			out = append(out, parent+alias)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// topName is what a child of a management command is called at the top.
func topName(parent, name string) string {
	switch parent + " " + name {
	case "container ls":
		return "ps"
	case "image ls":
		return "images"
	case "image rm":
		return "rmi"
	case "container inspect", "image inspect", "image diff", "container prune", "image prune", "system collect", "system df", "system dial-stdio", "system prune":
		return parent + " " + name
	}
	if parent == "volume" || parent == "network" {
		return parent + " " + name
	}
	return name
}
