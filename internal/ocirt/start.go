package ocirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// Start starts a container. It returns when its process has called execve or,
// with StartFIFO, when it waits for Release. The hooks that come before that
// have been run; Poststart and Poststop are the caller's, with RunHooks.
//
// On an error nothing is left: no process, no mount, and no cgroup that Start
// made. The errors are *StepError, *ExecError, *HookError, or of the classes of
// errdefs when the specification is at fault.
func Start(ctx context.Context, c *Container) (*Process, error) {
	p, err := Prepare(c)
	if err != nil {
		return nil, err
	}
	return p.Start(ctx)
}

// Prepared is a container of which the root file system and the cgroup are being
// made: most of the work before the fork, of which neither part needs the other.
type Prepared struct {
	c      *Container
	root   chan openedRoot
	cgroup chan madeCgroup
}

type openedRoot struct {
	file *os.File
	err  error
}

type madeCgroup struct {
	*cgroup.Cgroup
	made  bool
	spare *Spare       // what it is made of, or nil
	late  func() error // makes it, in a spare whose process has its program; nil when it is made
	err   error
}

// Prepare begins a start and returns at once. The caller may still set the
// streams of c, and calls Start or Drop.
func Prepare(c *Container) (*Prepared, error) {
	if err := checkSpec(c); err != nil {
		return nil, err
	}
	p := &Prepared{c: c, root: make(chan openedRoot, 1), cgroup: make(chan madeCgroup, 1)}
	go func() {
		f, err := openRoot(c)
		p.root <- openedRoot{f, err}
	}()
	go func() {
		p.cgroup <- containerCgroup(c)
	}()
	return p, nil
}

// Start is the rest of the package's Start.
func (p *Prepared) Start(ctx context.Context) (*Process, error) {
	cg, root := <-p.cgroup, <-p.root
	defer cg.spare.close()
	err := cg.err
	if err == nil {
		err = root.err
	}
	var process *Process
	if err == nil {
		process, err = start(ctx, p.c, &cg, root.file)
		switch {
		case errors.Is(err, cgroup.ErrInTheWay): // after the spare's process took the root
			root.file.Close()
			if root.file, err = openRoot(p.c); err != nil {
				break
			}
			fallthrough
		case errors.Is(err, spawn.ErrNoSpare):
			cg.spare.drop()
			process, err = start(ctx, p.c, &cg, root.file)
		}
	}
	if err != nil {
		cg.drop()
	}
	if root.file != nil {
		root.file.Close()
	}
	return process, err
}

// Drop takes back what Prepare has made.
func (p *Prepared) Drop() {
	cg := <-p.cgroup
	cg.drop()
	cg.spare.close()
	if root := <-p.root; root.file != nil {
		root.file.Close()
	}
}

// drop removes the cgroup if it was made for the container.
func (m madeCgroup) drop() {
	m.spare.drop()
	if m.err == nil && m.made {
		if m.late == nil { // else what may be there is another's
			_ = m.Delete()
		}
		_ = m.spare.cgroup().Discard() // what has not become m
	}
}

func checkSpec(c *Container) error {
	if c.Spec == nil || c.Spec.Linux == nil {
		return errs.InvalidArgument("the specification is not one of a Linux container")
	}
	switch l := c.Spec.Linux; {
	case l.IntelRdt != nil:
		return errs.NotImplemented("the specification asks for intelRdt, which this runtime does not have")
	case len(l.NetDevices) > 0:
		return errs.NotImplemented("the specification asks for netDevices, which this runtime does not have")
	}
	if c.Spec.Process == nil && c.StartFIFO != "" {
		return nil // config.md: it is required when start is called
	}
	return checkProcess(c.Spec.Process)
}

// holder is the process of a container without one: it keeps the namespaces until
// somebody tries to start it, and ends then.
func holder() *specs.Process {
	return &specs.Process{Cwd: "/", NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{}}
}

// containerCgroup is the cgroup to start in, made unless it is there.
func containerCgroup(c *Container) madeCgroup {
	if c.Cgroup != nil {
		return madeCgroup{Cgroup: c.Cgroup, late: c.Record}
	}
	path, res := c.Spec.Linux.CgroupsPath, c.Spec.Linux.Resources
	if path == "" {
		path = "/" + c.ID
	}
	m := madeCgroup{Cgroup: cgroup.New(path), made: true}
	m.Plan(res)
	if c.Spare != nil {
		m.spare = c.Spare(path, c.Spec)
	}
	m.late = func() error {
		if c.Record != nil {
			if err := c.Record(); err != nil {
				return err
			}
		}
		return m.CreateFrom(m.spare.cgroup(), res)
	}
	if !m.spare.waits() {
		m.err = m.make()
	}
	return m
}

// make makes the cgroup unless it is made.
func (m *madeCgroup) make() error {
	if m.late == nil {
		return nil
	}
	err := m.late()
	if err == nil {
		m.late = nil
	}
	return err
}

func start(ctx context.Context, c *Container, cg *madeCgroup, root *os.File) (_ *Process, err error) {
	process := c.Spec.Process
	if process == nil {
		process = holder()
	}
	ns, err := parseNamespaces(c.Spec.Linux.Namespaces, c.NetNS)
	if err != nil {
		return nil, err
	}
	program := &spawn.Program{}
	spare := cg.spare.processFor(c, &ns, cg.Cgroup)
	if spare != nil {
		program = spare.In()
	} else if err := cg.make(); err != nil {
		return nil, err
	}
	b := newBuilder(program, c.Spec, process, c.ExtraFiles)
	defer b.close()
	if b.inSpare = spare != nil; b.inSpare {
		b.inTrees = cg.spare.hasTrees(c.Spec)
	}
	b.id, b.bundle, b.cgroup, b.spare, b.filter, b.ns = c.ID, c.Bundle, cg.Cgroup, cg.spare, c.Filter, ns
	if err := b.checkNamespaces(); err != nil {
		return nil, err
	}
	if b.based = usesBase(c, &b.ns); b.based {
		if b.baseFD, err = b.pass(c.Base); err != nil {
			return nil, err
		}
	}
	dir, err := b.compile(c, root)
	if err != nil {
		return nil, err
	}
	flags := b.ns.cloneFlags()
	if b.based {
		flags &^= unix.CLONE_NEWNS
	}
	return b.run(ctx, flags, dir, cg.make)
}

// checkNamespaces refuses what would change the host.
func (b *builder) checkNamespaces() error {
	l := b.spec.Linux
	fresh := b.ns.fresh&unix.CLONE_NEWUSER != 0
	if fresh && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0) {
		return errs.InvalidArgument("a new user namespace needs user and group mappings")
	}
	if !b.ns.has(unix.CLONE_NEWUSER) && (len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0) {
		return errs.InvalidArgument("user and group mappings need a user namespace")
	}
	return nil
}

// compile adds the whole life of the child, in order. It returns the directory
// to be born in, for cgroup v2.
func (b *builder) compile(c *Container, root *os.File) (cgroupDir string, err error) {
	b.home = homeOf(root, b.process)

	if cgroupDir, err = b.joinCgroup(b.cgroup); err != nil {
		return "", err
	}
	b.copyAt = b.NewReg()
	if err := b.early(); err != nil {
		return "", err
	}
	if err := b.enterNamespaces(); err != nil {
		return "", err
	}
	b.joinKeyring(c.NoNewKeyring)
	if err := b.passStreams(c.Stdin, c.Stdout, c.Stderr); err != nil {
		return "", err
	}
	if err := b.setNames(); err != nil {
		return "", err
	}
	if err := b.setUpRoot(c, root); err != nil {
		return "", err
	}
	if err := b.passFIFO(c.StartFIFO); err != nil {
		return "", err
	}
	b.enterAsRoot()
	b.Doing("wait", "for the engine")
	b.Gate()
	if c.StartFIFO == "" && len(b.hooks().StartContainer) > 0 {
		b.Doing("wait", "for hooks")
		b.Barrier(eventStartHooks)
	}
	if err := b.finish(); err != nil {
		return "", err
	}
	if b.waits {
		b.waitFIFO()
	}
	b.execute()
	return cgroupDir, nil
}

// run forks and makes a Process of what comes out.
func (b *builder) run(ctx context.Context, flags uint64, cgroupDir string, meanwhile func() error) (*Process, error) {
	attr := &spawn.Attr{
		Flags:     flags,
		Keep:      b.keep,
		Floor:     b.floor,
		Meanwhile: meanwhile,
		Barrier:   func(child *spawn.Child, event int) error { return b.answer(ctx, child, event) },
	}
	if cgroupDir != "" {
		dir, err := os.OpenFile(cgroupDir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot join cgroup: %w", err)
		}
		defer dir.Close()
		attr.Cgroup = dir
	}
	child, err := b.Start(ctx, attr)
	if err != nil {
		return nil, b.explain(err)
	}
	p := &Process{Pid: child.Pid, PidFD: child.PidFD, Cgroup: b.cgroup}
	if b.process != nil && b.process.Terminal && len(child.Files) > 0 {
		p.Console = child.Files[0]
	}
	if b.inSpare {
		p.StartTime = b.spare.startTime
	} else if p.StartTime, err = startTime(child.Pid); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return nil, b.abandon(p, err)
	}
	return p, nil
}

// abandon ends a process that was started but cannot be returned.
func (b *builder) abandon(p *Process, err error) error {
	_ = unix.PidfdSendSignal(int(p.PidFD.Fd()), unix.SIGKILL, nil, 0)
	_, _ = unix.Wait4(p.Pid, nil, 0, nil)
	p.PidFD.Close()
	if p.Console != nil {
		p.Console.Close()
	}
	return err
}

// passFIFO opens the start FIFO. Read and write, so that it neither blocks nor
// ends; and before the root changes, so that its path is the host's.
func (b *builder) passFIFO(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("cannot open the start FIFO: %w", err)
	}
	b.waits = true
	b.fifo, err = b.own(f)
	return err
}

func (b *builder) waitFIFO() {
	b.Doing("wait", "for start")
	b.Detach()
	b.Sys(unix.SYS_READ, b.fifo, b.Space(8), spawn.Int(1))
}

// Release lets a process that waits at a StartFIFO go on, and execute its
// program. The caller has run the StartContainer hooks (RunContainerHooks)
// before. The error is ErrFailedPrecondition-like (errdefs.ErrConflict) when
// nobody waits: the container was started before, or is gone.
func Release(fifo string) error {
	f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENXIO) {
		return errs.Conflict("cannot start the container: nothing waits at %s", filepath.Base(fifo))
	}
	if err != nil {
		return fmt.Errorf("cannot start the container: %w", err)
	}
	defer f.Close()
	if _, err := f.Write([]byte{0}); err != nil {
		return fmt.Errorf("cannot start the container: %w", err)
	}
	return nil
}
