// Package ocirt runs OCI containers: it compiles an OCI runtime-spec
// configuration into a flat program of system calls, and has package spawn fork
// a child that runs it and becomes the container.
//
// It owns everything between "here is a config.json and a root filesystem" and
// "the process runs": namespaces, mounts, devices, the terminal, credentials,
// seccomp, hooks. It must not know about images, networks, records, logs or the
// Engine API, and it keeps no state: what it starts belongs to its caller, who
// is the parent of the process and has to reap it.
//
// It needs Linux 5.12 (mount_setattr); everything later is used where it is.
//
// # How a container is kept inside
//
// The child never executes anything of ours: between the fork and the
// container's own program there is no helper binary and no second start of a
// runtime, so nothing of ours can be replaced, and there is no environment,
// linker or interpreter to attack. What earlier runtimes were bitten by:
//
//   - CVE-2019-5736 (/proc/self/exe overwritten): an image may have the child
//     execute /proc/self/exe, or a script whose interpreter that is, and the
//     container then holds the program of the runtime. Who starts containers has
//     called Protect: the program runs from a read-only mount that is in no mount
//     namespace, so its file cannot be opened to be written through any of its
//     processes. Until its execve the child is non-dumpable besides.
//   - CVE-2016-9962 (a process on its way into a container, traced by those in
//     it): an exec, and a container that shares the pid namespace of another one,
//     enters that when it has given up its privileges and all memory of the
//     program it was (spawn's Forget).
//   - CVE-2016-9962, CVE-2024-21626 (leaked descriptors): the child closes every
//     descriptor but the listed ones before anything else, all descriptors made
//     later are close-on-exec, and what is left is swept before execve. The
//     working directory is entered last and must be reachable from the root.
//   - CVE-2019-16884, CVE-2019-19921, CVE-2021-30465, CVE-2023-27561,
//     CVE-2023-28642, CVE-2024-45310 (mount targets that are symlinks, or become
//     them): every target is opened with openat2(RESOLVE_IN_ROOT |
//     RESOLVE_NO_MAGICLINKS), missing ones are made relative to descriptors, and
//     mounts are moved onto the opened descriptor, never onto a path. /proc must
//     be a real directory of the root.
//   - CVE-2025-31133 (masking with a fake /dev/null): the source of a mask is
//     the host's /dev/null, opened before the container's root exists and
//     checked to be character device 1:3.
//   - CVE-2025-52565 (/dev/console): the terminal is opened through the devpts
//     mount itself and its other end with TIOCGPTPEER; no path is looked up.
//   - CVE-2025-52881 (writes to /proc redirected): sysctls, labels and the OOM
//     score are written through a descriptor of the host's procfs, checked with
//     fstatfs, opened before the container's root exists, and crossing neither
//     mounts nor symlinks.
//   - CVE-2022-29162 (inheritable capabilities): sets are exactly those of the
//     specification.
package ocirt

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/ocirt/seccomp"
)

// Container is what Start needs to know. All files stay the caller's: they are
// duplicated into the child and may be closed once Start has returned.
type Container struct {
	ID   string
	Spec *specs.Spec
	// Bundle is the directory relative paths of the specification start from. It
	// may be empty when RootMounts are given and no path is relative.
	Bundle string
	// RootMounts make the root filesystem, inside the container's own mount
	// namespace. When there are none Spec.Root.Path is bind mounted.
	RootMounts []mount.Mount
	// NetNS is a network namespace to join. It overrides the specification's.
	NetNS *os.File
	// Stdin, Stdout and Stderr become the descriptors 0, 1 and 2; nil means
	// /dev/null. They are ignored when Spec.Process.Terminal is set.
	Stdin, Stdout, Stderr *os.File
	// ExtraFiles become the descriptors 3 and up.
	ExtraFiles []*os.File
	// Cgroup is the cgroup to join. When nil, Start creates the one the
	// specification names (Linux.CgroupsPath, Linux.Resources).
	Cgroup *cgroup.Cgroup
	// Spare, when set, is asked for one whose cgroup suits the one Start is about
	// to create; it returns nil when it has none. Start uses it up.
	Spare func(path string, spec *specs.Spec) *Spare
	// Record, when set, is called before the cgroup is made, maybe while the
	// container's first process is being set up. When it returns an error the start
	// fails with it.
	Record func() error
	// StartFIFO, when set, is the path of an existing FIFO: the process is made
	// ready and then waits until Release is called with the same path. This is
	// the split between create and start of the OCI runtime command line. Only
	// with it may Spec.Process be nil: what waits then can only be killed.
	//
	// A program that turns out not to be executable after Release is told to the
	// process's stderr, and is exit code 126 or 127, as of shells.
	StartFIFO string
	// Base, when set, is the empty mount namespace of NewBase, which may be shared
	// by any number of containers. It makes Start quicker.
	Base *os.File
	// Mtab gives a root that has an /etc the link /etc/mtab, which old programs
	// read the mounts from. What the image has there stays.
	Mtab bool
	// NoPivot enters the root with a move and chroot instead of pivot_root, for
	// hosts whose root is a ramdisk.
	NoPivot bool
	// NoNewKeyring leaves the process in the caller's session keyring.
	NoNewKeyring bool
	// Filter, when set, is used in place of Spec.Linux.Seccomp: compiling a
	// profile takes longer than all else Start does before it forks. It is only
	// read, and may be shared.
	Filter *seccomp.Program
}

// Process is a process that was started. The caller is its parent and reaps it,
// with waitid on PidFD; it must not wait for "any child" while Start runs.
type Process struct {
	Pid   int
	PidFD *os.File // owned by the caller
	// StartTime is field 22 of /proc/PID/stat: clock ticks after boot. Together
	// with Pid it names a process for as long as the machine is up.
	StartTime uint64
	// Console is the master of the terminal, owned by the caller; nil without one.
	Console *os.File
	// Cgroup is the cgroup the process was put in; nil when there is none.
	Cgroup *cgroup.Cgroup
}

// Exec is a further process in a running container.
type Exec struct {
	// Pid is the container's first process. StartTime, when not 0, has to be its
	// start time: it guards against a reused pid.
	Pid       int
	StartTime uint64
	// ID is the container's; it names the session keyring to join.
	ID string
	// Spec is the container's specification, Process that of the new process.
	Spec    *specs.Spec
	Process *specs.Process
	// Cgroup is joined before anything else happens; nil leaves the process in
	// the caller's.
	Cgroup                *cgroup.Cgroup
	Stdin, Stdout, Stderr *os.File
	ExtraFiles            []*os.File
	// NoPivot says that the container was started with NoPivot.
	NoPivot bool
	// NoNewKeyring leaves the process in the caller's session keyring.
	NoNewKeyring bool
	// Filter, when set, is used in place of Spec.Linux.Seccomp.
	Filter *seccomp.Program

	path string // executed instead of Process.Args[0]: hooks have both
}
