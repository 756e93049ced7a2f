package shell

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// builtins stands in for commands that a POSIX shell has in itself and the
// interpreter knows by name only. What it has done becomes true or false.
func builtins(ctx context.Context, args []string) ([]string, error) {
	h := interp.HandlerCtx(ctx)
	var err error
	switch args[0] {
	case "kill":
		return append([]string{"/bin/kill"}, args[1:]...), nil
	case "umask":
		err = umask(h.Stdout, args[1:])
	case "ulimit":
		err = ulimit(h.Stdout, args[1:])
	default:
		return args, nil
	}
	if err != nil {
		fmt.Fprintf(h.Stderr, "%s: %v\n", args[0], err)
		return []string{"false"}, nil
	}
	return []string{"true"}, nil
}

func umask(out io.Writer, args []string) error {
	if len(args) == 0 {
		mask := unix.Umask(0)
		unix.Umask(mask)
		_, err := fmt.Fprintf(out, "%04o\n", mask)
		return err
	}
	mask, err := strconv.ParseUint(args[0], 8, 12)
	if err != nil {
		return fmt.Errorf("%q is no octal mask", args[0])
	}
	unix.Umask(int(mask))
	return nil
}

// limit is one resource limit, by the letter ulimit has for it.
type limit struct {
	letter   string
	resource int
	unit     uint64 // bytes or pieces
	name     string
}

func limits() []limit {
	return []limit{
		{"c", unix.RLIMIT_CORE, 512, "core file size (blocks)"},
		{"d", unix.RLIMIT_DATA, 1024, "data seg size (kb)"},
		{"f", unix.RLIMIT_FSIZE, 512, "file size (blocks)"},
		{"l", unix.RLIMIT_MEMLOCK, 1024, "locked memory (kb)"},
		{"m", unix.RLIMIT_RSS, 1024, "memory (kb)"},
		{"n", unix.RLIMIT_NOFILE, 1, "open files"},
		{"s", unix.RLIMIT_STACK, 1024, "stack size (kb)"},
		{"t", unix.RLIMIT_CPU, 1, "cpu time (seconds)"},
		{"u", unix.RLIMIT_NPROC, 1, "processes"},
		{"v", unix.RLIMIT_AS, 1024, "virtual memory (kb)"},
	}
}

// ulimit shows or sets limits: ulimit [-HS] [-a | -LETTER] [VALUE].
func ulimit(out io.Writer, args []string) error {
	hard, soft, all, letter := false, false, false, "f"
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		for _, ch := range args[0][1:] {
			switch ch {
			case 'H':
				hard = true
			case 'S':
				soft = true
			case 'a':
				all = true
			default:
				letter = string(ch)
			}
		}
		args = args[1:]
	}
	for _, l := range limits() {
		if !all && l.letter != letter {
			continue
		}
		var r unix.Rlimit
		if err := unix.Prlimit(0, l.resource, nil, &r); err != nil {
			return err
		}
		switch {
		case all:
			fmt.Fprintf(out, "%-26s (-%s) %s\n", l.name, l.letter, l.show(r, hard))
		case len(args) == 0:
			fmt.Fprintln(out, l.show(r, hard))
		default:
			return l.set(r, args[0], hard || !soft, soft || !hard)
		}
		if !all {
			return nil
		}
	}
	if !all {
		return fmt.Errorf("unknown limit -%s", letter)
	}
	return nil
}

func (l limit) show(r unix.Rlimit, hard bool) string {
	n := r.Cur
	if hard {
		n = r.Max
	}
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n/l.unit, 10)
}

func (l limit) set(r unix.Rlimit, value string, hard, soft bool) error {
	n := uint64(unix.RLIM_INFINITY)
	if value != "unlimited" {
		v, err := strconv.ParseUint(value, 10, 53)
		if err != nil {
			return fmt.Errorf("%q is no limit", value)
		}
		n = v * l.unit
	}
	if hard {
		r.Max = n
	}
	if soft {
		r.Cur = n
	}
	if err := unix.Prlimit(os.Getpid(), l.resource, &r, nil); err != nil {
		return fmt.Errorf("cannot set the limit of %s: %w", l.name, err)
	}
	return nil
}
