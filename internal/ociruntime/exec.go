package ociruntime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
)

// execFlags are the flags that describe the process.
type execFlags struct {
	process, cwd, user   string
	env, groups, caps    *[]string
	label, apparmor      string
	tty, noNewPrivileges bool
}

func execCommand(f *flags) runner {
	o, p := &execOptions{}, &execFlags{}
	f.StringVar(&o.consoleSocket, "console-socket", "", "Unix socket that takes the master of the terminal")
	f.StringVar(&o.pidFile, "pid-file", "", "file to write the PID of the process to")
	f.BoolVar(&o.detach, "detach", false, "do not stay with the process")
	f.also("d", "detach")
	f.BoolVar(&o.ignorePaused, "ignore-paused", false, "also in a paused container, where it runs when that is resumed")
	f.IntVar(&o.preserveFDs, "preserve-fds", 0, "how many descriptors from 3 on the process inherits")
	f.StringVar(&o.cgroup, "cgroup", "", "cgroup to run in, below the container's")
	f.StringVar(&p.process, "process", "", "file with the whole process as JSON")
	f.also("p", "process")
	f.StringVar(&p.cwd, "cwd", "", "working directory")
	f.StringVar(&p.user, "user", "", "UID[:GID]")
	f.also("u", "user")
	f.BoolVar(&p.tty, "tty", false, "give the process a terminal")
	f.also("t", "tty")
	f.BoolVar(&p.noNewPrivileges, "no-new-privs", false, "the process cannot gain privileges by execve")
	f.StringVar(&p.label, "process-label", "", "SELinux label")
	f.StringVar(&p.apparmor, "apparmor", "", "AppArmor profile")
	p.env = f.list("env", "NAME=VALUE; may be repeated")
	f.also("e", "env")
	p.groups = f.list("additional-gids", "further group IDs; may be repeated")
	f.also("g", "additional-gids")
	p.caps = f.list("cap", "capability to add; may be repeated")
	f.also("c", "cap")
	return func(ctx context.Context, r *runtime, args []string) (int, error) {
		if len(args) == 0 {
			return 0, errs.InvalidArgument("the container ID is missing")
		}
		o.id = args[0]
		if err := checkCgroupBelow(o.cgroup); err != nil {
			return 0, err
		}
		var err error
		if o.process, err = r.processOf(o.id, p, args[1:]); err != nil {
			return 0, err
		}
		return r.exec(ctx, o)
	}
}

func checkCgroupBelow(p string) error {
	if slices.Contains(strings.Split(p, "/"), "..") {
		return errs.InvalidArgument("invalid --cgroup %q: it must lie below the container's", p)
	}
	return nil
}

// processOf is the process to execute: the one of --process, or the container's
// own with other arguments.
func (r *runtime) processOf(id string, f *execFlags, args []string) (*specs.Process, error) {
	if f.process != "" {
		b, err := os.ReadFile(f.process)
		if err != nil {
			return nil, fmt.Errorf("cannot read the process: %w", err)
		}
		var p specs.Process
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, errs.InvalidArgument("cannot read the process in %s: %w", f.process, err)
		}
		return &p, nil
	}
	c, err := r.load(id)
	if err != nil {
		return nil, err
	}
	spec, err := c.spec()
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, errs.InvalidArgument("there is nothing to execute: give a command, or --process")
	}
	p := spec.Process
	if p == nil {
		return nil, errs.InvalidArgument("container %s has no process whose environment to take: describe the new one with --process", id)
	}
	p.Args, p.Terminal = args, f.tty
	if h, w, ok := sizeOfTerminal(); ok && f.tty {
		p.ConsoleSize = &specs.Box{Height: h, Width: w}
	}
	return p, f.apply(p)
}

func (f *execFlags) apply(p *specs.Process) error {
	if f.cwd != "" {
		p.Cwd = f.cwd
	}
	p.Env = append(p.Env, *f.env...)
	if f.user != "" {
		var err error
		if p.User.UID, p.User.GID, err = parseUser(f.user); err != nil {
			return err
		}
	}
	for _, g := range *f.groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return errs.InvalidArgument("invalid --additional-gids %q: must be a number", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(n))
	}
	if f.noNewPrivileges {
		p.NoNewPrivileges = true
	}
	if f.label != "" {
		p.SelinuxLabel = f.label
	}
	if f.apparmor != "" {
		p.ApparmorProfile = f.apparmor
	}
	if len(*f.caps) == 0 {
		return nil
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	for _, c := range *f.caps {
		name := strings.ToUpper(c)
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		for _, set := range []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted} {
			if !slices.Contains(*set, name) {
				*set = append(*set, name)
			}
		}
	}
	return nil
}
