package ocirt

import (
	"context"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/spawn"
)

type unixErrno = syscall.Errno

// What the child waits for at a barrier.
const (
	eventUserMaps = iota + 1
	eventTimeOffsets
	eventCopyUp
	eventCreateHooks
	eventStartHooks
	eventSeccomp
)

// answer does what the child waits for.
func (b *builder) answer(ctx context.Context, child *spawn.Child, event int) error {
	switch event {
	case eventUserMaps:
		return writeUserMaps(child.Current(), b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings)
	case eventTimeOffsets:
		return writeTimeOffsets(child.Current(), b.spec.Linux.TimeOffsets)
	case eventCopyUp:
		return b.copyUps[child.Reg(b.copyAt)].run(child)
	case eventCreateHooks:
		return b.createHooks(ctx, child.Current())
	case eventStartHooks:
		return RunContainerHooks(ctx, child.Current(), b.spec, b.hooks().StartContainer, b.state(specs.StateCreated, child.Current()), b.cgroup)
	case eventSeccomp:
		return b.handListener(child)
	}
	return nil
}

func (b *builder) hooks() specs.Hooks {
	if b.spec.Hooks == nil {
		return specs.Hooks{}
	}
	return *b.spec.Hooks
}

// state is what hooks and seccomp agents are told about the container.
func (b *builder) state(status specs.ContainerState, pid int) *specs.State {
	return &specs.State{
		Version:     b.spec.Version,
		ID:          b.id,
		Status:      status,
		Pid:         pid,
		Bundle:      b.bundle,
		Annotations: b.spec.Annotations,
	}
}
