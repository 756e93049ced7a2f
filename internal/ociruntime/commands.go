package ociruntime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// runner is what a command does once its flags are parsed.
type runner = func(ctx context.Context, r *runtime, args []string) (int, error)

// simple is the runner of a command that takes an ID and has no exit code.
func simple(do func(ctx context.Context, r *runtime, id string) error) runner {
	return func(ctx context.Context, r *runtime, args []string) (int, error) {
		id, err := oneID(args)
		if err != nil {
			return 0, err
		}
		return 0, do(ctx, r, id)
	}
}

func createFlags(f *flags, o *createOptions) {
	f.StringVar(&o.bundle, "bundle", ".", "directory with config.json (the working directory)")
	f.also("b", "bundle")
	f.StringVar(&o.pidFile, "pid-file", "", "file to write the PID of the container's process to")
	f.StringVar(&o.consoleSocket, "console-socket", "", "Unix socket that takes the master of the terminal")
	f.BoolVar(&o.noPivot, "no-pivot", false, "do not use pivot_root, for hosts whose root is a ramdisk")
	f.BoolVar(&o.noNewKeyring, "no-new-keyring", false, "leave the process in the caller's session keyring")
	f.IntVar(&o.preserveFDs, "preserve-fds", 0, "how many descriptors from 3 on the container inherits")
}

func createCommand(f *flags) runner {
	o := &createOptions{}
	createFlags(f, o)
	return simple(func(ctx context.Context, r *runtime, id string) error {
		o.id = id
		c, _, err := r.create(ctx, o)
		if err != nil {
			return err
		}
		c.release()
		return nil
	})
}

func startCommand(*flags) runner {
	return simple(func(ctx context.Context, r *runtime, id string) error { return r.begin(ctx, id) })
}

func runCommand(f *flags) runner {
	o := &createOptions{}
	createFlags(f, o)
	detach := f.Bool("detach", false, "do not stay with the container")
	f.also("d", "detach")
	keep := f.Bool("keep", false, "do not delete the container when it ends")
	f.Bool("no-subreaper", false, "accepted for compatibility; there never is one")
	return func(ctx context.Context, r *runtime, args []string) (int, error) {
		id, err := oneID(args)
		if err != nil {
			return 0, err
		}
		o.id = id
		return r.run(ctx, o, *detach, *keep)
	}
}

func stateCommand(*flags) runner {
	return simple(func(_ context.Context, r *runtime, id string) error {
		c, err := r.load(id)
		if err != nil {
			return err
		}
		return printJSON(view(c))
	})
}

// listed is the state as state and list print it: the specification's with what
// runc adds.
type listed struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func view(c *container) listed {
	s := c.state()
	return listed{
		Version: s.Version, ID: s.ID, Pid: s.Pid, Status: string(s.Status), Bundle: s.Bundle,
		Rootfs: c.Rootfs, Created: c.Created, Annotations: s.Annotations, Owner: owner(c.dir),
	}
}

func owner(dir string) string {
	fi, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	uid := strconv.Itoa(int(fi.Sys().(*syscall.Stat_t).Uid))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "#" + uid
}

func printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(b))
	return err
}

func killCommand(f *flags) runner {
	all := f.Bool("all", false, "signal every process of the container, and do not mind if it is stopped")
	f.also("a", "all")
	return func(_ context.Context, r *runtime, args []string) (int, error) {
		name := "SIGTERM"
		if len(args) == 2 {
			name, args = args[1], args[:1]
		}
		id, err := oneID(args)
		if err != nil {
			return 0, err
		}
		sig, err := parseSignal(name)
		if err != nil {
			return 0, err
		}
		return 0, r.kill(id, sig, *all)
	}
}

func deleteCommand(f *flags) runner {
	force := f.Bool("force", false, "kill the container first; it is no error if there is none")
	f.also("f", "force")
	return simple(func(ctx context.Context, r *runtime, id string) error { return r.delete(ctx, id, *force) })
}

func pauseCommand(*flags) runner {
	return simple(func(_ context.Context, r *runtime, id string) error { return r.freeze(id, true) })
}

func resumeCommand(*flags) runner {
	return simple(func(_ context.Context, r *runtime, id string) error { return r.freeze(id, false) })
}

func listCommand(f *flags) runner {
	format := f.String("format", "table", "table or json")
	f.also("f", "format")
	quiet := f.Bool("quiet", false, "print the IDs only")
	f.also("q", "quiet")
	return func(_ context.Context, r *runtime, args []string) (int, error) {
		if len(args) > 0 {
			return 0, errs.InvalidArgument("unexpected argument %q", args[0])
		}
		all, err := r.list()
		if err != nil {
			return 0, err
		}
		views := make([]listed, 0, len(all))
		for _, c := range all {
			if *quiet {
				fmt.Println(c.ID)
				continue
			}
			views = append(views, view(c))
		}
		switch {
		case *quiet:
			return 0, nil
		case *format == "json":
			return 0, printJSON(views)
		case *format != "table":
			return 0, errs.InvalidArgument("invalid --format %q: must be table or json", *format)
		}
		w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, v := range views {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", v.ID, v.Pid, v.Status, v.Bundle, v.Created.Format(time.RFC3339Nano), v.Owner)
		}
		return 0, w.Flush()
	}
}

// parseUser reads --user: UID[:GID]. Names are the caller's to resolve: they
// mean something only inside the container's root.
func parseUser(s string) (uid, gid uint32, err error) {
	u, g, both := strings.Cut(s, ":")
	n, err := strconv.ParseUint(u, 10, 32)
	if err != nil {
		return 0, 0, errs.InvalidArgument("invalid --user %q: must be UID[:GID], in numbers", s)
	}
	uid = uint32(n)
	if both {
		if n, err = strconv.ParseUint(g, 10, 32); err != nil {
			return 0, 0, errs.InvalidArgument("invalid --user %q: must be UID[:GID], in numbers", s)
		}
		gid = uint32(n)
	}
	return uid, gid, nil
}

// sizeOfTerminal reads the caller's terminal, when there is one.
func sizeOfTerminal() (h, w uint, ok bool) {
	ws, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Row == 0 {
		return 0, 0, false
	}
	return uint(ws.Row), uint(ws.Col), true
}
