// Package shell is /bin/sh of the toolbox: mvdan.cc/sh behind the command line
// of a POSIX shell. It knows the language from there, and itself only how a
// script gets in and a status gets out.
package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// Main runs the shell with the arguments of its command line, of which the
// first is its name, and returns its exit status.
func Main(args []string) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 2
	}
	options := []interp.RunnerOption{
		interp.StdIO(os.Stdin, os.Stdout, os.Stderr),
		interp.CallHandler(builtins),
		interp.Params(append(append(o.set, "--"), o.params...)...),
	}
	runner, err := interp.New(options...)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 2
	}
	switch {
	case o.command != nil:
		err = script(runner, strings.NewReader(*o.command), o.name)
	case o.file != "":
		f, openErr := os.Open(o.file)
		if openErr != nil {
			fmt.Fprintf(os.Stderr, "%s: cannot open %s: %v\n", args[0], o.file, errors.Unwrap(openErr))
			return 127
		}
		defer f.Close()
		err = script(runner, f, o.file)
	case o.interactive || term.IsTerminal(0) && term.IsTerminal(1):
		err = interactive(runner)
	default:
		err = stream(runner, os.Stdin)
	}
	return status(args[0], err)
}

// options is a command line, read.
type options struct {
	command     *string
	file, name  string
	params      []string
	set         []string // options of the language, as "set" takes them
	interactive bool
}

// parse reads "sh [-eux…] [-i] [-l] [-c command [name]] [file] [args]".
func parse(args []string) (*options, error) {
	o := &options{name: args[0]}
	rest, wantCommand := args[1:], false
	for len(rest) > 0 && len(rest[0]) > 1 && (rest[0][0] == '-' || rest[0][0] == '+') {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			break
		}
		if arg == "--login" {
			continue
		}
		if arg == "-o" || arg == "+o" {
			if len(rest) == 0 {
				return nil, fmt.Errorf("%s needs the name of an option", arg)
			}
			o.set, rest = append(o.set, arg, rest[0]), rest[1:]
			continue
		}
		for _, letter := range arg[1:] {
			switch letter {
			case 'c':
				wantCommand = true
			case 'i':
				o.interactive = true
			case 'l', 's': // a login shell is any other here; -s is the default
			default:
				o.set = append(o.set, string(arg[0])+string(letter))
			}
		}
	}
	if wantCommand {
		if len(rest) == 0 {
			return nil, errors.New("-c requires an argument")
		}
		o.command, rest = &rest[0], rest[1:]
		if len(rest) > 0 {
			o.name, rest = rest[0], rest[1:]
		}
	} else if len(rest) > 0 && !o.interactive {
		o.file, rest = rest[0], rest[1:]
	}
	o.params = rest
	return o, nil
}

// script runs a whole script, which knows itself as $0 by the name.
func script(runner *interp.Runner, r io.Reader, name string) error {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(r, name)
	if err != nil {
		return err
	}
	return runner.Run(context.Background(), file)
}

// stream runs a script as it arrives, statement by statement.
func stream(runner *interp.Runner, r io.Reader) error {
	var last error
	for stmt, err := range syntax.NewParser(syntax.Variant(syntax.LangBash)).StmtsSeq(r) {
		if err != nil {
			return err
		}
		last = runner.Run(context.Background(), stmt)
		var st interp.ExitStatus
		if runner.Exited() || last != nil && !errors.As(last, &st) {
			return last
		}
	}
	return last
}

func status(name string, err error) int {
	if err == nil {
		return 0
	}
	var st interp.ExitStatus
	if errors.As(err, &st) {
		return int(st)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return 2
}

// Builtin runs one of the shell's own commands, such as test, as a program.
func Builtin(args []string) int {
	for i, arg := range args {
		quoted, err := syntax.Quote(arg, syntax.LangBash)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
			return 2
		}
		args[i] = quoted
	}
	runner, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr), interp.CallHandler(builtins))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 2
	}
	return status(args[0], script(runner, strings.NewReader(strings.Join(args, " ")), args[0]))
}

// interactive reads commands from a person.
func interactive(runner *interp.Runner) error {
	// A signal from the keyboard is for the command that runs.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	defer signal.Stop(signals)
	in := newLines()
	var pending strings.Builder
	var last error
	for {
		prompt := "> "
		if pending.Len() == 0 {
			prompt = promptOf(runner.Dir)
		}
		line, err := in.read(prompt)
		if err != nil {
			fmt.Println()
			return last
		}
		pending.WriteString(line + "\n")
		file, err := syntax.NewParser().Parse(strings.NewReader(pending.String()), "")
		if syntax.IsIncomplete(err) {
			continue
		}
		pending.Reset()
		if err != nil {
			fmt.Fprintf(os.Stderr, "sh: %v\n", err)
			continue
		}
		for _, stmt := range file.Stmts {
			last = runner.Run(context.Background(), stmt)
			if runner.Exited() {
				return last
			}
			var st interp.ExitStatus
			if last != nil && !errors.As(last, &st) {
				fmt.Fprintf(os.Stderr, "sh: %v\n", last)
			}
		}
	}
}

func promptOf(dir string) string {
	mark := "$"
	if os.Getuid() == 0 {
		mark = "#"
	}
	return dir + " " + mark + " "
}
