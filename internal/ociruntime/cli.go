package ociruntime

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt"
)

// Version is what --version reports; the build sets it.
var Version = "0.1.0-dev"

// DefaultRoot is where the state of containers is unless --root says otherwise.
const DefaultRoot = "/run/gantry-oci"

// command is one word of the command line.
type command struct {
	name, args, help string
	// passThrough stops at the first argument that is no flag: the rest belongs to
	// another program.
	passThrough bool
	// setup defines the flags and returns what runs once they are parsed. The int
	// is the exit code when there is no error.
	setup func(f *flags) func(ctx context.Context, r *runtime, args []string) (int, error)
}

// commands is the table of the command line.
func commands() []command {
	return []command{
		{name: "create", args: "ID", help: "create a container from a bundle; its program waits for start", setup: createCommand},
		{name: "start", args: "ID", help: "execute the program of a created container", setup: startCommand},
		{name: "run", args: "ID", help: "create and start a container", setup: runCommand},
		{name: "state", args: "ID", help: "print the state of a container as JSON", setup: stateCommand},
		{name: "kill", args: "ID [SIGNAL]", help: "send a signal (SIGTERM) to a container", setup: killCommand},
		{name: "delete", args: "ID", help: "delete a stopped container", setup: deleteCommand},
		{name: "exec", args: "ID [COMMAND [ARG...]]", help: "start a further process in a container", passThrough: true, setup: execCommand},
		{name: "list", args: "", help: "list the containers", setup: listCommand},
		{name: "ps", args: "ID [PS-OPTION...]", help: "list the processes of a container", passThrough: true, setup: psCommand},
		{name: "pause", args: "ID", help: "freeze all processes of a container", setup: pauseCommand},
		{name: "resume", args: "ID", help: "let the processes of a paused container run on", setup: resumeCommand},
		{name: "update", args: "ID", help: "change the limits of a container", setup: updateCommand},
		{name: "events", args: "ID", help: "print OOM events and statistics as JSON", setup: eventsCommand},
		{name: "spec", args: "", help: "write a config.json to start from", setup: specCommand},
		{name: "features", args: "", help: "print what this runtime can do as JSON", setup: featuresCommand},
	}
}

// Main is the whole program; it returns the exit code.
func Main(args []string) int {
	g, rest, err := parseGlobal(args)
	log := &logger{debug: g.debug}
	switch {
	case err != nil:
		log.fail(err)
		return 1
	case g.version:
		fmt.Printf("gantry-oci version %s\nspec: %s\n", Version, specs.Version)
		return 0
	case g.help || len(rest) == 0 || rest[0] == "help" && len(rest) == 1:
		usage(os.Stdout)
		return 0
	}
	switch rest[0] {
	case "create", "run", "exec":
		if err := ocirt.Protect(); err != nil {
			log.fail(err)
			return 1
		}
	}
	if err := log.open(g.log, g.logFormat); err != nil {
		log.fail(err)
		return 1
	}
	code, err := dispatch(context.Background(), g, log, rest)
	if err != nil {
		log.fail(err)
		return exitCode(rest[0], err)
	}
	return code
}

func dispatch(ctx context.Context, g *global, log *logger, args []string) (int, error) {
	name := args[0]
	if name == "help" {
		name, args = args[1], append(args[1:2:2], "--help")
	}
	for _, c := range commands() {
		if c.name != name {
			continue
		}
		f := newFlags(c)
		run := c.setup(f)
		rest, err := f.parse(args[1:], c.passThrough)
		if errors.Is(err, flag.ErrHelp) {
			f.usage(os.Stdout)
			return 0, nil
		}
		if err != nil {
			return 0, errs.InvalidArgument("%s: %w", c.name, err)
		}
		if g.systemd {
			return 0, errs.NotImplemented("cannot use the systemd cgroup driver: gantry-oci manages cgroups itself (leave out --systemd-cgroup)")
		}
		return run(ctx, &runtime{root: g.root, warn: log.warn}, rest)
	}
	return 0, errs.InvalidArgument("unknown command %q: see gantry-oci --help", name)
}

// exitCode follows shells for the program of a container, and runc for what else
// goes wrong with exec.
func exitCode(command string, err error) int {
	if command == "run" || command == "exec" {
		switch {
		case errors.Is(err, ocirt.ErrNotFound):
			return 127
		case errors.Is(err, ocirt.ErrNotExecutable):
			return 126
		case command == "exec":
			return 255
		}
	}
	return 1
}

// global are the flags before the command.
type global struct {
	root, log, logFormat string
	debug, systemd       bool
	version, help        bool
}

func parseGlobal(args []string) (*global, []string, error) {
	g := &global{}
	f := flag.NewFlagSet("gantry-oci", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&g.root, "root", DefaultRoot, "")
	f.StringVar(&g.log, "log", "", "")
	f.StringVar(&g.logFormat, "log-format", "text", "")
	f.BoolVar(&g.debug, "debug", false, "")
	f.BoolVar(&g.systemd, "systemd-cgroup", false, "")
	f.BoolVar(&g.version, "version", false, "")
	f.BoolVar(&g.version, "v", false, "")
	manager := f.String("cgroup-manager", "cgroupfs", "")
	rootless := f.String("rootless", "auto", "")
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		g.help, err = true, nil
	case err != nil:
		err = errs.InvalidArgument("%w", err)
	case *manager == "systemd":
		g.systemd = true
	case *manager != "cgroupfs":
		err = errs.InvalidArgument("invalid --cgroup-manager %q: gantry-oci has cgroupfs only", *manager)
	case *rootless == "true" || *rootless == "yes":
		err = errs.NotImplemented("gantry-oci runs as root: --rootless is not supported")
	}
	return g, f.Args(), err
}

func usage(w io.Writer) {
	fmt.Fprintf(w, `gantry-oci runs containers as the OCI runtime specification %s describes.

Usage: gantry-oci [GLOBAL FLAGS] COMMAND [FLAGS] [ARGUMENTS]

Commands:
`, specs.Version)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.help)
	}
	fmt.Fprintf(w, `
Global flags:
  --root DIR          where the state of containers is (%s)
  --log FILE          write errors and warnings there too
  --log-format FORMAT text or json
  --debug             write debug messages
  --version, -v       print the version
  --help, -h          print this

See "gantry-oci COMMAND --help" for the flags of a command.
`, DefaultRoot)
}

// flags are those of one command; a flag may have a second name of one letter.
type flags struct {
	*flag.FlagSet
	cmd   command
	order []string
	short map[string]string
}

func newFlags(c command) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(c.name, flag.ContinueOnError), cmd: c, short: map[string]string{}}
	f.SetOutput(io.Discard)
	return f
}

// also gives the flag defined last its one-letter name.
func (f *flags) also(letter, name string) {
	f.short[name] = letter
	d := f.Lookup(name)
	f.Var(d.Value, letter, d.Usage)
}

// list is a flag that may be repeated.
func (f *flags) list(name, help string) *[]string {
	v := &stringList{}
	f.Var(v, name, help)
	return (*[]string)(v)
}

type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// parse takes flags and arguments in any order, unless the arguments belong to
// another program.
func (f *flags) parse(args []string, passThrough bool) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		left := f.Args()
		if passThrough {
			return left, nil
		}
		if len(left) == 0 {
			return rest, nil
		}
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

func (f *flags) usage(w io.Writer) {
	fmt.Fprintf(w, "Usage: gantry-oci %s [FLAGS] %s\n\n%s\n\nFlags:\n", f.cmd.name, f.cmd.args, f.cmd.help)
	f.VisitAll(func(d *flag.Flag) {
		if len(d.Name) == 1 {
			return
		}
		name := "--" + d.Name
		if s := f.short[d.Name]; s != "" {
			name = "-" + s + ", " + name
		}
		fmt.Fprintf(w, "  %-26s %s\n", name, d.Usage)
	})
}

// oneID is the argument of most commands.
func oneID(args []string) (string, error) {
	switch len(args) {
	case 0:
		return "", errs.InvalidArgument("the container ID is missing")
	case 1:
		return args[0], nil
	}
	return "", errs.InvalidArgument("unexpected argument %q", args[1])
}
