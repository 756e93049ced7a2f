package ocirt

import (
	"encoding/json"
	"fmt"
	"net"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/seccomp"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// installSeccomp adds the step that installs the filter, the caller's or that of
// the specification. Everything after it is subject to that filter.
func (b *builder) installSeccomp() (err error) {
	prog := b.filter
	if prog == nil {
		if prog, err = seccomp.Compile(b.spec.Linux.Seccomp); err != nil {
			return err
		}
	}
	if prog == nil || len(prog.Filter) == 0 {
		return nil
	}
	if !b.mayAppearUnder(prog) {
		b.appear()
	}
	filter := b.Struct(unsafe.Pointer(unsafe.SliceData(prog.Filter)), uintptr(len(prog.Filter))*unsafe.Sizeof(prog.Filter[0]))
	// struct sock_fprog
	fprog := struct {
		len    uint16
		filter uintptr
	}{uint16(len(prog.Filter)), filter.Addr()}
	addr := b.Struct(unsafe.Pointer(&fprog), unsafe.Sizeof(fprog))
	b.Doing("install", "the seccomp filter")
	call := func() spawn.Step {
		return b.Sys(unix.SYS_SECCOMP, spawn.Int(unix.SECCOMP_SET_MODE_FILTER), spawn.Uint(uint64(prog.Flags)), addr)
	}
	if !prog.Notify {
		call()
		return nil
	}
	if prog.ListenerPath == "" {
		return errs.InvalidArgument("the seccomp profile asks for notifications and names no listener")
	}
	b.listener = prog
	b.Offer(eventSeccomp, call)
	return nil
}

// mayAppearUnder says whether appear can come after the filter, and with that
// after the privileges are gone. A profile that forbids what it takes, which none
// in use does, has the process appear early.
func (b *builder) mayAppearUnder(prog *seccomp.Program) bool {
	return prog.Permits(unix.SYS_CLONE, spawn.ForkFlags) &&
		prog.Permits(unix.SYS_SETSID) &&
		prog.Permits(unix.SYS_EXIT_GROUP) &&
		(!b.process.Terminal || prog.Permits(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0))
}

// handListener gives the seccomp listener to the agent that waits for it
// (config-linux.md, "The Container Process State").
func (b *builder) handListener(child *spawn.Child) error {
	f := child.Files[len(child.Files)-1]
	child.Files = child.Files[:len(child.Files)-1]
	defer f.Close()
	pid := child.Current()
	msg, err := json.Marshal(specs.ContainerProcessState{
		Version:  b.spec.Version,
		Fds:      []string{specs.SeccompFdName},
		Pid:      pid,
		Metadata: b.listener.ListenerMetadata,
		State:    *b.state(specs.StateCreating, pid),
	})
	if err != nil {
		return fmt.Errorf("cannot encode the state for the seccomp agent: %w", err)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: b.listener.ListenerPath, Net: "unix"})
	if err != nil {
		return fmt.Errorf("cannot reach the seccomp agent: %w", err)
	}
	defer conn.Close()
	if _, _, err := conn.WriteMsgUnix(msg, unix.UnixRights(int(f.Fd())), nil); err != nil {
		return fmt.Errorf("cannot hand the listener to the seccomp agent: %w", err)
	}
	return nil
}
