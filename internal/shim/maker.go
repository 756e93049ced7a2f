package shim

import (
	"context"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocirt/seccomp"
)

// maker makes a container's first process. Either spawn or drop is called, once.
type maker interface {
	// confine sets the seccomp filter, in place of a profile in the specification.
	confine(*seccomp.Program)
	spawn(ctx context.Context, io *stdio) (*ocirt.Process, error)
	drop()
}

// maker begins to make the container's first process, with the runtime asked for.
func (t *task) maker(r *StartRequest, spec *specs.Spec, netns *os.File) (maker, error) {
	if r.Runtime != nil {
		if err := checkID(r.Runtime.Name); err != nil {
			return nil, errs.InvalidArgument("invalid runtime name: %s", r.Runtime.Name)
		}
		if err := t.keep(r); err != nil {
			return nil, err
		}
		return &externalMaker{t.h.external(r.Runtime, t.id), spec, r.RootMounts, netns}, nil
	}
	c := &ocirt.Container{ID: r.ID, Spec: spec, Bundle: r.Bundle, RootMounts: r.RootMounts, NetNS: netns, Base: t.h.base(), Mtab: true}
	c.Record = func() error { return t.keep(r) }
	if r.OwnParent {
		c.Spare = t.h.spares.take
	}
	p, err := ocirt.Prepare(c)
	if err != nil {
		return nil, err
	}
	return &builtinMaker{c, p}, nil
}

type builtinMaker struct {
	c *ocirt.Container
	p *ocirt.Prepared
}

func (m *builtinMaker) confine(f *seccomp.Program) { m.c.Filter = f }
func (m *builtinMaker) drop()                      { m.p.Drop() }

func (m *builtinMaker) spawn(ctx context.Context, io *stdio) (*ocirt.Process, error) {
	m.c.Stdin, m.c.Stdout, m.c.Stderr = io.theirs[0], io.theirs[1], io.theirs[2]
	return m.p.Start(ctx)
}

type externalMaker struct {
	x     *external
	spec  *specs.Spec
	root  []mount.Mount
	netns *os.File
}

func (m *externalMaker) confine(*seccomp.Program) {} // its profile is in the specification
func (m *externalMaker) drop()                    {}

func (m *externalMaker) spawn(ctx context.Context, io *stdio) (*ocirt.Process, error) {
	return m.x.start(ctx, m.spec, m.root, m.netns, io)
}
