package ocirt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/spawn"
	"github.com/gantry-containers/gantry/internal/timerslack"
)

// HookError is a hook that failed.
type HookError struct {
	Path   string
	Output string // what it wrote, at most a few kilobytes
	Err    error
}

func (e *HookError) Error() string {
	s := fmt.Sprintf("hook %s failed: %v", e.Path, e.Err)
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

// Unwrap gives the reason.
func (e *HookError) Unwrap() error { return e.Err }

// RunHooks runs hooks of the runtime namespace one after another, with the state
// as JSON on their stdin. It stops at the first that fails (*HookError). A hook
// that takes longer than its timeout is killed.
func RunHooks(ctx context.Context, hooks []specs.Hook, state *specs.State) error {
	for i := range hooks {
		h := &hooks[i]
		err := withHook(ctx, h, state, func(ctx context.Context, stdin []byte, output io.Writer) error {
			cmd := exec.CommandContext(ctx, h.Path)
			cmd.Args = h.Args
			if len(cmd.Args) == 0 {
				cmd.Args = []string{h.Path}
			}
			cmd.Env = append([]string{}, h.Env...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), output, output
			cmd.WaitDelay = time.Second
			var err error
			timerslack.Strictly(func() { err = cmd.Run() })
			if errors.Is(err, exec.ErrWaitDelay) {
				return nil // it succeeded and left a child that holds its output
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// withHook does what all hooks have in common.
func withHook(ctx context.Context, h *specs.Hook, state *specs.State, run func(context.Context, []byte, io.Writer) error) error {
	if !filepath.IsAbs(h.Path) {
		return errs.InvalidArgument("the path of hook %q is not absolute", h.Path)
	}
	stdin, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("cannot encode the state for hook %s: %w", h.Path, err)
	}
	if h.Timeout != nil {
		if *h.Timeout <= 0 {
			return errs.InvalidArgument("the timeout of hook %s is not positive", h.Path)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(*h.Timeout)*time.Second, fmt.Errorf("timed out after %d s", *h.Timeout))
		defer cancel()
	}
	var out limited
	if err := run(ctx, stdin, &out); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &HookError{Path: h.Path, Output: strings.TrimSpace(out.String()), Err: err}
	}
	return nil
}

// limited keeps the first 4 KiB of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 4096 - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// ReadFrom hides the method of bytes.Buffer, which has no limit.
func (l *limited) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{l}, r)
}

func hasCreateHooks(h *specs.Hooks) bool {
	//nolint:staticcheck // Prestart is deprecated and in use
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0
}

// createHooks runs the hooks that come before the root is entered.
func (b *builder) createHooks(ctx context.Context, pid int) error {
	h := b.hooks()
	//nolint:staticcheck // Prestart is deprecated and in use
	prestart := h.Prestart
	for _, list := range [][]specs.Hook{prestart, h.CreateRuntime} {
		if err := RunHooks(ctx, list, b.state(specs.StateCreated, pid)); err != nil {
			return err
		}
	}
	state := b.state(specs.StateCreated, pid)
	state.Pid = innerPid(pid)
	for i := range h.CreateContainer {
		if err := b.createContainerHook(ctx, pid, &h.CreateContainer[i], state); err != nil {
			return err
		}
	}
	return nil
}

// createContainerHook runs a hook in the namespaces of a container that has not
// entered its root yet: its path is one of the host.
func (b *builder) createContainerHook(ctx context.Context, pid int, h *specs.Hook, state *specs.State) error {
	return withHook(ctx, h, state, func(ctx context.Context, stdin []byte, output io.Writer) error {
		p := &spawn.Program{}
		attr := &spawn.Attr{Floor: 3}
		io, err := newHookIO(stdin, output, attr)
		if err != nil {
			return err
		}
		defer io.close()
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		target := os.NewFile(uintptr(fd), "pidfd")
		defer target.Close()
		attr.Keep = append(attr.Keep, fd)
		p.Doing("join", "the container's namespaces")
		p.Sys(unix.SYS_SETNS, spawn.Int(fd), spawn.Uint(b.ns.fresh|b.ns.joined))
		if b.ns.has(unix.CLONE_NEWPID) {
			p.Fork()
		}
		for i, f := range io.child {
			p.Sys(unix.SYS_DUP3, spawn.Int(int(f.Fd())), spawn.Int(i), spawn.Int(0))
		}
		args := h.Args
		if len(args) == 0 {
			args = []string{h.Path}
		}
		p.Doing("execute", h.Path)
		p.Sys(unix.SYS_EXECVE, p.Str(h.Path), p.Strs(args), p.Strs(h.Env)).Last()
		child, err := p.Start(ctx, attr)
		if err != nil {
			return err
		}
		return io.wait(ctx, child.Pid, child.PidFD)
	})
}

// RunContainerHooks runs hooks in the container pid is the first process of,
// with its namespaces, root, capabilities and filters: StartContainer hooks.
func RunContainerHooks(ctx context.Context, pid int, spec *specs.Spec, hooks []specs.Hook, state *specs.State, cg *cgroup.Cgroup) error {
	inner := *state
	inner.Pid = innerPid(pid)
	for i := range hooks {
		h := &hooks[i]
		err := withHook(ctx, h, &inner, func(ctx context.Context, stdin []byte, output io.Writer) error {
			var attr spawn.Attr
			io, err := newHookIO(stdin, output, &attr)
			if err != nil {
				return err
			}
			defer io.close()
			proc := *spec.Process
			proc.Terminal, proc.Cwd, proc.Env, proc.Args = false, "/", h.Env, h.Args
			proc.User = specs.User{}
			if len(proc.Args) == 0 {
				proc.Args = []string{h.Path}
			}
			e := &Exec{Pid: pid, Spec: spec, Process: &proc, Cgroup: cg, Stdin: io.child[0], Stdout: io.child[1], Stderr: io.child[2], path: h.Path}
			p, err := e.Start(ctx)
			if err != nil {
				return err
			}
			return io.wait(ctx, p.Pid, p.PidFD)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// innerPid is the pid a process has in its own pid namespace, from the last
// field of NSpid.
func innerPid(pid int) int {
	f, err := openProc(fmt.Sprintf("%d/status", pid), unix.O_RDONLY)
	if err != nil {
		return pid
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return pid
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(rest)
			if len(fields) > 0 {
				_, _ = fmt.Sscan(fields[len(fields)-1], &pid)
			}
		}
	}
	return pid
}
