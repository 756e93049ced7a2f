// Package cli is the gantry command: it turns arguments into requests to the
// Engine API and answers into what a person or a script reads.
//
// It owns the commands, one file each, their flags, texts and exit codes, and
// follows Docker's command line in all three. It asks, and never decides: it
// must not import the engine or anything with a slow init, because a command
// should cost what its request costs. Therefore the table in commands.go builds
// only the command that was named.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/config"
)

// Version, Commit and BuildTime are set when the programs are linked.
var (
	Version   = "0.1.0-dev"
	Commit    = ""
	BuildTime = ""
)

// app is what every command needs: the streams, the global flags and, when it
// is asked for, the engine.
type app struct {
	in, out, err *os.File
	global       globals
	engine       *client.Client
	conf         *config.File
}

// Main runs one command line, args[0] being the program's name, and returns the
// exit code.
func Main(args []string) int {
	// A command lives for milliseconds: collecting garbage would cost more than
	// the garbage. Long-lived commands are bounded by the limit.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)

	useStack(-1)
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	return a.exitCode(a.run(context.Background(), args))
}

// useStack has the stack grow while there is little on it: when it grows below a
// request the runtime looks every frame up, in tables that nobody else reads.
//
//go:noinline
func useStack(at int) byte {
	if at < 0 {
		return 0 // before the frame, which is room for, is cleared
	}
	var frame [24 << 10]byte
	return frame[at]
}

func (a *app) run(ctx context.Context, args []string) error {
	rest, err := a.global.parse(args[1:])
	if err != nil {
		return err
	}
	if a.global.version {
		fmt.Fprintf(a.out, "Gantry version %s, build %s\n", Version, orUnknown(Commit))
		return nil
	}
	if len(rest) > 0 && !isBuiltin(rest[0]) {
		if found, err := a.runPlugin(rest); found {
			return err
		}
		if slices.Contains(commandNames(), rest[0]) {
			return fmt.Errorf("gantry %[1]s is a program of its own, gantry-%[1]s, and that is neither beside gantry nor among its plugins", rest[0])
		}
		if !strings.HasPrefix(rest[0], "-") {
			return unknownCommand(rest[0])
		}
	}
	if err := a.becomeTLS(args); err != nil {
		return err
	}
	root := a.root(rest)
	root.SetArgs(rest)
	return root.ExecuteContext(ctx)
}

// client connects lazily: commands that only print need no engine.
func (a *app) client() (*client.Client, error) {
	if a.engine != nil {
		return a.engine, nil
	}
	host, isDefault := a.global.host()
	secure, err := a.global.secure()
	if err != nil {
		return nil, err
	}
	opts := client.Options{
		Host:    host,
		Secure:  secure,
		Version: os.Getenv("DOCKER_API_VERSION"),
		Headers: a.config().HTTPHeaders,
		Agent:   "Gantry-Client/" + Version,
	}
	if isDefault && !a.global.noStart {
		opts.Revive = a.startEngine
	}
	a.engine, err = client.New(opts)
	return a.engine, err
}

// config reads the configuration file once. A broken one is a warning, as it is
// for Docker: most commands do not need it.
func (a *app) config() *config.File {
	if a.conf == nil {
		var err error
		if a.conf, err = config.Load(a.global.configDir); err != nil {
			fmt.Fprintln(a.err, "WARNING:", err)
		}
	}
	return a.conf
}

// json sends one request and decodes the answer.
func (a *app) json(ctx context.Context, r *client.Request, out any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.JSON(ctx, r, out)
}

// each runs do for every name, at most 50 at a time, and prints the names that
// went well in the order they were given.
func (a *app) each(names []string, do func(name string) error) error {
	if len(names) == 1 {
		if err := do(names[0]); err != nil {
			return err
		}
		fmt.Fprintln(a.out, names[0])
		return nil
	}
	results := make([]chan error, len(names))
	slots := make(chan struct{}, 50)
	for i := range names {
		results[i] = make(chan error, 1)
	}
	go func() {
		for i, name := range names {
			slots <- struct{}{}
			go func() {
				results[i] <- do(name)
				<-slots
			}()
		}
	}()
	var errs []error
	for i, name := range names {
		if err := <-results[i]; err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(a.out, name)
	}
	return errors.Join(errs...)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// root builds the command tree that args need.
func (a *app) root(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:                   "gantry [OPTIONS] COMMAND",
		Short:                 "A container engine where a container costs what a process costs",
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(args[0])
			}
			a.help(cmd)
			return nil
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true, DisableDefaultCmd: len(args) > 0 && inTable(args[0])},
	}
	new(globals).addTo(root.Flags()) // for the help; the values were read before
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.help(cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { a.help(cmd); return nil })
	a.addCommands(root, args)
	return root
}
