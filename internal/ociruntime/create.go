package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt"
)

// runtime is one state directory.
type runtime struct {
	root string
	warn func(format string, args ...any)
}

// createOptions are the flags of create and run.
type createOptions struct {
	id, bundle             string
	pidFile, consoleSocket string
	noPivot, noNewKeyring  bool
	preserveFDs            int
	now                    bool // run: do not wait to be started
	foreground             bool // the caller keeps the terminal itself
}

// create makes a container. Unless o.now its process waits for start. The lock of
// the container is held when it returns; the process is the caller's child.
func (r *runtime) create(ctx context.Context, o *createOptions) (_ *container, p *ocirt.Process, err error) {
	bundle, err := filepath.Abs(o.bundle)
	if err != nil {
		return nil, nil, err
	}
	spec, err := readBundle(bundle)
	if err != nil {
		return nil, nil, err
	}
	if spec.Process == nil && o.now {
		return nil, nil, errs.InvalidArgument("the configuration has no process: there is nothing to run")
	}
	if err := checkTerminal(spec.Process, o.consoleSocket, o.foreground); err != nil {
		return nil, nil, err
	}
	if spec.Linux.MountLabel != "" && !ocirt.SELinux() {
		r.warn("the mount label %q has no effect: this kernel has no SELinux, or it is off", spec.Linux.MountLabel)
	}
	if h, w, ok := sizeOfTerminal(); ok && o.foreground && spec.Process.ConsoleSize == nil {
		spec.Process.ConsoleSize = &specs.Box{Height: h, Width: w}
	}
	c, err := r.reserve(o.id)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(c.dir)
			c.release()
		}
	}()
	c.describe(spec, bundle, o)
	if err := c.write(specFile, spec); err != nil {
		return nil, nil, err
	}
	if err := c.save(); err != nil {
		return nil, nil, err
	}
	p, err = r.start(ctx, c, spec, o)
	if err != nil {
		var hook *ocirt.HookError
		if errors.As(err, &hook) && spec.Hooks != nil {
			r.poststop(ctx, c, spec)
		}
		return nil, nil, err
	}
	return c, p, nil
}

// describe fills the record of a new container.
func (c *container) describe(spec *specs.Spec, bundle string, o *createOptions) {
	if spec.Linux.CgroupsPath == "" {
		spec.Linux.CgroupsPath = "/gantry-oci-" + o.id
	}
	rootfs := ""
	if spec.Root != nil {
		rootfs = spec.Root.Path
		if !filepath.IsAbs(rootfs) {
			rootfs = filepath.Join(bundle, rootfs)
		}
	}
	c.record = record{
		ID:           o.id,
		Version:      spec.Version,
		Bundle:       bundle,
		Rootfs:       rootfs,
		Created:      time.Now().UTC(),
		Cgroup:       spec.Linux.CgroupsPath,
		Annotations:  spec.Annotations,
		NoPivot:      o.noPivot,
		NoNewKeyring: o.noNewKeyring,
	}
}

// start forks the container's process and tells everyone who asked about it.
func (r *runtime) start(ctx context.Context, c *container, spec *specs.Spec, o *createOptions) (*ocirt.Process, error) {
	extra, env, err := inherited(o.preserveFDs)
	if err != nil {
		return nil, err
	}
	if spec.Process != nil {
		spec.Process.Env = append(spec.Process.Env, env...)
	}
	oc := &ocirt.Container{
		ID: c.ID, Spec: spec, Bundle: c.Bundle,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: extra,
		NoPivot: o.noPivot, NoNewKeyring: o.noNewKeyring,
	}
	if !o.now {
		if err := unix.Mkfifo(c.fifo(), 0o600); err != nil {
			return nil, fmt.Errorf("cannot make the start FIFO: %w", err)
		}
		oc.StartFIFO = c.fifo()
	}
	p, err := ocirt.Start(ctx, oc)
	if err != nil {
		return nil, err
	}
	c.Pid, c.StartTime = p.Pid, p.StartTime
	if err := c.announce(p, o); err != nil {
		_ = c.signal(unix.SIGKILL)
		_, _ = unix.Wait4(p.Pid, nil, 0, nil)
		if p.Cgroup != nil {
			_ = p.Cgroup.Kill(unix.SIGKILL)
			_ = p.Cgroup.Delete()
		}
		return nil, err
	}
	return p, nil
}

func (c *container) announce(p *ocirt.Process, o *createOptions) error {
	if err := c.save(); err != nil {
		return err
	}
	if o.consoleSocket != "" {
		if err := sendConsole(o.consoleSocket, p.Console); err != nil {
			return err
		}
		p.Console.Close()
		p.Console = nil
	}
	return writePidFile(o.pidFile, p.Pid)
}

// readBundle reads and checks config.json (bundle.md).
func readBundle(bundle string) (*specs.Spec, error) {
	path := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.NotFound("the bundle %s has no config.json", bundle)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return parseSpec(b, path)
}

func parseSpec(b []byte, name string) (*specs.Spec, error) {
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, errs.InvalidArgument("cannot read %s: %w", name, err)
	}
	if err := checkVersion(s.Version); err != nil {
		return nil, err
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	return &s, nil
}

// checkVersion accepts every 1.x: later ones only add.
func checkVersion(v string) error {
	major, rest, ok := strings.Cut(v, ".")
	minor, patch, ok2 := strings.Cut(rest, ".")
	patch, _, _ = strings.Cut(patch, "-")
	patch, _, _ = strings.Cut(patch, "+")
	numeric := true
	for _, n := range []string{major, minor, patch} {
		if _, err := strconv.ParseUint(n, 10, 32); err != nil {
			numeric = false
		}
	}
	if !ok || !ok2 || !numeric {
		return errs.InvalidArgument("invalid ociVersion %q: must be a version such as %s", v, specs.Version)
	}
	if major != strconv.Itoa(specs.VersionMajor) {
		return errs.InvalidArgument("ociVersion %s is not supported: this runtime implements %s", v, specs.Version)
	}
	return nil
}

func checkTerminal(p *specs.Process, socket string, foreground bool) error {
	terminal := p != nil && p.Terminal
	switch {
	case terminal && socket == "" && !foreground:
		return errs.InvalidArgument("the process wants a terminal: --console-socket has to say who takes it")
	case !terminal && socket != "":
		return errs.InvalidArgument("--console-socket was given, but the process wants no terminal")
	}
	return nil
}

// inherited collects the descriptors a container gets beside the standard ones:
// those of --preserve-fds, and those of socket activation (sd_listen_fds(3)),
// which come first.
func inherited(preserve int) (files []*os.File, env []string, err error) {
	listen, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if listen > 0 {
		env = []string{"LISTEN_FDS=" + strconv.Itoa(listen), "LISTEN_PID=1"}
	}
	for fd := 3; fd < 3+listen+preserve; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, nil, errs.InvalidArgument("descriptor %d is to be preserved, but it is not open", fd)
		}
		files = append(files, os.NewFile(uintptr(fd), "fd"+strconv.Itoa(fd)))
	}
	return files, env, nil
}

// writePidFile writes the file whole or not at all: who waits for it reads it at
// once.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("cannot write the PID file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("cannot write the PID file: %w", err)
	}
	return nil
}
