package ociruntime

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

func psCommand(f *flags) runner {
	format := f.String("format", "table", "table or json")
	f.also("f", "format")
	return func(ctx context.Context, r *runtime, args []string) (int, error) {
		if len(args) == 0 {
			return 0, errs.InvalidArgument("the container ID is missing")
		}
		c, err := r.load(args[0])
		if err != nil {
			return 0, err
		}
		pids, err := cgroup.New(c.Cgroup).Pids()
		if err != nil {
			return 0, err
		}
		switch *format {
		case "json":
			if pids == nil {
				pids = []int{}
			}
			return 0, printJSON(pids)
		case "table":
			return 0, table(ctx, pids, args[1:])
		}
		return 0, errs.InvalidArgument("invalid --format %q: must be table or json", *format)
	}
}

// table prints the lines of ps(1) that are about the container.
func table(ctx context.Context, pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot run ps: %w: %s", err, strings.TrimSpace(string(out)))
	}
	text, err := pick(string(out), pids)
	if err != nil {
		return err
	}
	fmt.Print(text)
	return nil
}

// pick keeps the heading and the lines whose PID column is one of pids.
func pick(out string, pids []int) (string, error) {
	var b strings.Builder
	column := -1
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if column < 0 {
			if column = slices.Index(f, "PID"); column < 0 {
				return "", errs.InvalidArgument("the output of ps has no column PID")
			}
			b.WriteString(line)
			continue
		}
		if column >= len(f) {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			b.WriteString(line)
		}
	}
	return b.String(), nil
}
