package ocirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/ocirt/seccomp"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// builder compiles a specification into a program. What it opens for the child
// in the parent is closed by close.
type builder struct {
	*spawn.Program
	spec    *specs.Spec
	process *specs.Process
	id      string
	bundle  string
	ns      namespaces
	floor   int // descriptors below are for the container's process
	keep    []int
	files   []*os.File // closed when the program has started

	root spawn.Reg // descriptor of the container's root, while it is set up
	temp spawn.Reg // descriptor of a mount target, from use to use
	made spawn.Reg // 1 when that target had to be made
	// places are the targets that were made in a root which held nothing before, and
	// in which nobody else is; nil when it is another.
	places map[string]bool
	null   spawn.Reg // descriptor of the host's /dev/null, when something is masked
	// nullMounted says that null is mounted somewhere, and can be copied.
	nullMounted bool
	host        spawn.Arg // descriptor of the host's procfs, when it is passed
	hasHost     bool
	statx       spawn.Arg // where statx writes
	empty       spawn.Arg // ""
	mounts      []mountPlan
	home        string // $HOME for the process when it has none
	cgroup      *cgroup.Cgroup
	spare       *Spare // what cgroup is made of, or nil
	inSpare     bool   // the child is the spare's process
	inTrees     bool   // and its trees are the specification's

	extra    []*os.File
	streams  []stream
	slave    spawn.Reg        // the process's end of the terminal
	entered  spawn.Reg        // 1 when the working directory was entered as root
	waits    bool             // for Release, before it executes
	fifo     spawn.Arg        // where it waits
	filter   *seccomp.Program // in place of the specification's profile
	listener *seccomp.Program // when the filter has one

	appears bool       // has still to enter the pid namespace it joined
	procs   []*os.File // of that namespace, one for each mount

	execPath         string // instead of Process.Args[0]
	execFrom, execTo int    // the steps that look for the program and execute it
	execMode         spawn.Reg
	searched         bool

	based  bool      // the mount namespace is a copy of the base
	baseFD spawn.Arg // the base, when based

	copyUps []copyUp
	copyAt  spawn.Reg // which of them the child waits for
}

func newBuilder(program *spawn.Program, spec *specs.Spec, process *specs.Process, extra []*os.File) *builder {
	b := &builder{
		Program: program,
		spec:    spec,
		process: process,
		floor:   3 + len(extra),
		extra:   extra,
	}
	b.root, b.temp, b.made = b.NewReg(), b.NewReg(), b.NewReg()
	b.statx = b.Space(256)
	b.empty = b.Str("")
	return b
}

func (b *builder) close() {
	for _, f := range b.files {
		f.Close()
	}
	b.files = nil
	b.closeProcs()
}

// pass gives the child a descriptor of the caller. Its number in the child is
// the result, and not one that the child will assign.
func (b *builder) pass(f *os.File) (spawn.Arg, error) {
	fd := int(f.Fd())
	if fd < b.floor {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, b.floor)
		if err != nil {
			return spawn.Arg{}, fmt.Errorf("cannot duplicate %s: %w", f.Name(), err)
		}
		b.files = append(b.files, os.NewFile(uintptr(dup), f.Name()))
		fd = dup
	}
	b.keep = append(b.keep, fd)
	return spawn.Int(fd), nil
}

// own is pass for a descriptor that is closed when the program has started.
func (b *builder) own(f *os.File) (spawn.Arg, error) {
	b.files = append(b.files, f)
	return b.pass(f)
}

// proc is the descriptor of the host's procfs in the child.
func (b *builder) proc() (spawn.Arg, error) {
	if b.hasHost {
		return b.host, nil
	}
	f, err := procRoot()
	if err != nil {
		return spawn.Arg{}, err
	}
	b.host, err = b.pass(f)
	b.hasHost = err == nil
	return b.host, err
}

// writeHostProc writes a file below the host's /proc.
func (b *builder) writeHostProc(path, value string) error {
	proc, err := b.proc()
	if err != nil {
		return err
	}
	b.Sys(unix.SYS_OPENAT2, proc, b.Str(path), b.how(unix.O_WRONLY, 0, procHow), spawn.Int(unix.SizeofOpenHow)).Save(b.temp)
	b.Sys(unix.SYS_WRITE, spawn.Val(b.temp), b.Str(value), spawn.Int(len(value)))
	b.shut(b.temp)
	return nil
}

// bundlePath makes a path of the specification absolute.
func bundlePath(bundle, p string) (string, error) {
	if filepath.IsAbs(p) {
		return filepath.Clean(p), nil
	}
	if bundle == "" {
		return "", errs.InvalidArgument("path %q is relative and there is no bundle it could be relative to", p)
	}
	return filepath.Abs(filepath.Join(bundle, p))
}

// how is the address of a struct open_how.
func (b *builder) how(flags, mode, resolve uint64) spawn.Arg {
	h := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: resolve}
	return b.Struct(unsafe.Pointer(&h), unsafe.Sizeof(h))
}

// inRoot opens a path of the container into r, following symlinks but never out
// of the root.
func (b *builder) inRoot(r spawn.Reg, path string, flags uint64) spawn.Step {
	resolve := uint64(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS)
	if path == "/proc" || path == "/sys" {
		// Everything about masks relies on where these are.
		resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	how := b.how(flags, 0, resolve)
	return b.Sys(unix.SYS_OPENAT2, spawn.Val(b.root), b.Str(relative(path)), how, spawn.Int(unix.SizeofOpenHow)).Save(r)
}

// relative turns an absolute path of the container into one for openat2.
func relative(path string) string {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	p := filepath.Clean(path)[1:]
	if p == "" {
		return "."
	}
	return p
}

// shut closes the descriptor in a register. What a spare's process has opened is
// closed all at once, when it begins to wait.
func (b *builder) shut(r spawn.Reg) {
	if b.places == nil {
		b.Sys(unix.SYS_CLOSE, spawn.Val(r)).Ignore()
	}
}

// setattr is mount_setattr on the mount behind an open descriptor.
func (b *builder) setattr(fd spawn.Arg, recursive bool, attr unix.MountAttr) spawn.Step {
	flags := unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return b.Sys(unix.SYS_MOUNT_SETATTR, fd, b.empty, spawn.Int(flags), b.Struct(unsafe.Pointer(&attr), unsafe.Sizeof(attr)), spawn.Uint(uint64(unsafe.Sizeof(attr))))
}

// moveTo attaches the mount behind mnt at the descriptor target.
func (b *builder) moveTo(mnt, target spawn.Arg) spawn.Step {
	return b.Sys(unix.SYS_MOVE_MOUNT, mnt, b.empty, target, b.empty,
		spawn.Int(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// cloneOf makes a detached copy of the mount at an open descriptor.
func (b *builder) cloneOf(r spawn.Reg, fd spawn.Arg, recursive bool) spawn.Step {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return b.Sys(unix.SYS_OPEN_TREE, fd, b.empty, spawn.Int(flags)).Save(r)
}
