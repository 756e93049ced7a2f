package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// exitError ends the command with a code of its own. Without err nothing is
// printed: the container's exit code is not an error of ours.
type exitError struct {
	code int
	err  error
	hint string // lines after the message
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode prints err as a sentence, with a hint where one helps.
func (a *app) exitCode(err error) int {
	if err == nil {
		return 0
	}
	code, hint := 1, ""
	var exit *exitError
	if errors.As(err, &exit) {
		code, hint = exit.code, exit.hint
	}
	if msg := err.Error(); msg != "" && !errors.Is(err, context.Canceled) {
		for i, line := range strings.Split(msg, "\n") {
			if i == 0 || line != "" {
				fmt.Fprintln(a.err, "gantry:", line)
			}
		}
	}
	if hint == "" {
		hint = a.hintFor(err)
	}
	if hint != "" {
		fmt.Fprintln(a.err, hint)
	}
	return code
}

// hintFor knows what a person can do about an engine that does not answer.
func (a *app) hintFor(err error) string {
	var c *client.ConnectError
	if !errors.As(err, &c) {
		return ""
	}
	host, isDefault := a.global.host()
	switch {
	case c.Forbidden():
		return "The socket belongs to another user: run the command as root, or with sudo."
	case !c.NothingThere() || !strings.HasPrefix(host, "unix://"):
		return ""
	case isDefault && os.Geteuid() != 0:
		return "No engine is running. Run the command once as root (sudo gantry …), which starts it, or start gantryd."
	case isDefault && a.global.noStart:
		return "No engine is running, and --no-start keeps gantry from starting it."
	case isDefault:
		return "No engine is running, and there is no gantryd beside gantry or in PATH to start."
	}
	return "Is gantryd running there?"
}

// flagError is a command line that cannot be understood.
func flagError(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: 125, err: err, hint: usageHint(cmd)}
}

func usageHint(cmd *cobra.Command) string {
	return fmt.Sprintf("\nUsage:  %s\n\nRun '%s --help' for more information", cmd.UseLine(), cmd.CommandPath())
}

// withHelp adds where to read more to an error of run and create.
func withHelp(cmd *cobra.Command, code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: code, err: err, hint: fmt.Sprintf("\nRun '%s --help' for more information", cmd.CommandPath())}
}

func unknownCommand(name string) error {
	err := fmt.Errorf("unknown command: gantry %s", name)
	hint := "\nRun 'gantry --help' for more information"
	if near := nearest(name, commandNames()); near != "" {
		hint = fmt.Sprintf("\nDid you mean 'gantry %s'?", near)
	}
	return &exitError{code: 1, err: err, hint: hint}
}

// nearest finds the name with the fewest edits, when those are few.
func nearest(name string, names []string) string {
	best, bestDist := "", len(name)/3+2
	for _, n := range names {
		d := distance(name, n)
		if strings.HasPrefix(n, name) && len(name) > 1 {
			d = min(d, 1)
		}
		if d < bestDist {
			best, bestDist = n, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove, replace or swap.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
