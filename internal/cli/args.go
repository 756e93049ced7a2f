package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// wrongArgs words a wrong number of arguments as Docker does.
func wrongArgs(cmd *cobra.Command, want string) error {
	return &exitError{
		code: 1,
		err:  fmt.Errorf("'%s' %s", cmd.CommandPath(), want),
		hint: usageHint(cmd),
	}
}

func plural(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		err := fmt.Errorf("unknown command: %s %s", cmd.CommandPath(), args[0])
		return &exitError{code: 1, err: err, hint: usageHint(cmd)}
	}
	return wrongArgs(cmd, "accepts no arguments")
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires at least %d %s", n, plural(n)))
	}
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires at most %d %s", n, plural(n)))
	}
}

func rangeArgs(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if lo <= len(args) && len(args) <= hi {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires at least %d and at most %d %s", lo, hi, plural(hi)))
	}
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires %d %s", n, plural(n)))
	}
}
