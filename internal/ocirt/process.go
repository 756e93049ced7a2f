package ocirt

import (
	"fmt"
	"math"
	"os"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/spawn"
)

// checkProcess refuses what can never work.
func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errs.InvalidArgument("the specification has no process")
	case len(p.Args) == 0:
		return errs.InvalidArgument("the process has no arguments: there is nothing to execute")
	case p.Args[0] == "":
		return &ExecError{Errno: unix.ENOENT, Searched: true}
	case !strings.HasPrefix(p.Cwd, "/"):
		return errs.InvalidArgument("working directory %q is not an absolute path", p.Cwd)
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return errs.InvalidArgument("%q contains a zero byte", s)
			}
		}
	}
	return nil
}

// early adds what needs the privileges of the host, which a user namespace takes
// away.
func (b *builder) early() error {
	p := b.process
	if p == nil {
		return nil
	}
	if p.OOMScoreAdj != nil {
		b.Doing("set", fmt.Sprintf("oom_score_adj to %d", *p.OOMScoreAdj))
		if err := b.writeHostProc("self/oom_score_adj", fmt.Sprint(*p.OOMScoreAdj)); err != nil {
			return err
		}
	}
	if err := b.setScheduler(p.Scheduler); err != nil {
		return err
	}
	if err := b.setIOPriority(p.IOPriority); err != nil {
		return err
	}
	if err := b.setMemoryPolicy(); err != nil {
		return err
	}
	if b.ns.has(unix.CLONE_NEWUSER) {
		return b.setRlimits(true)
	}
	return nil
}

// finish adds everything from the finished environment to execve: limits,
// streams, credentials, seccomp.
func (b *builder) finish() error {
	p := b.process
	if err := b.setRlimits(false); err != nil {
		return err
	}
	b.placeStreams()
	if err := b.setPersonality(); err != nil {
		return err
	}
	if p.NoNewPrivileges {
		b.Doing("set", "no_new_privs")
		b.Sys(unix.SYS_PRCTL, spawn.Int(unix.PR_SET_NO_NEW_PRIVS), spawn.Int(1), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	}
	// From here on only what is already open is used, and nothing else is when
	// the filter is in force: a profile need not allow more than the program asks.
	b.Doing("close", "what is left open")
	b.Sys(unix.SYS_CLOSE_RANGE, spawn.Int(b.floor), spawn.Uint(math.MaxUint32), spawn.Int(unix.CLOSE_RANGE_CLOEXEC))
	if b.waits {
		b.Detaching()
	}
	if !p.NoNewPrivileges && (b.filter != nil || b.spec.Linux.Seccomp != nil) {
		// It needs a privilege that goes now.
		if err := b.installSeccomp(); err != nil {
			return err
		}
	}
	c := b.capabilities()
	b.boundCapabilities(c)
	b.setUser(c)
	b.workingDirectory()
	if b.waits && len(p.Args) > 0 {
		b.lookUp()
	}
	b.appear()
	if p.NoNewPrivileges {
		return b.installSeccomp()
	}
	return nil
}

// setUser takes on the user and the capabilities.
func (b *builder) setUser(c capSets) {
	u := b.process.User
	b.Doing("set", "the capabilities")
	b.Sys(unix.SYS_PRCTL, spawn.Int(unix.PR_SET_KEEPCAPS), spawn.Int(1), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	b.Doing("set", "the additional groups")
	groups := spawn.Int(0)
	if len(u.AdditionalGids) > 0 {
		groups = b.Struct(unsafe.Pointer(unsafe.SliceData(u.AdditionalGids)), uintptr(len(u.AdditionalGids))*4)
	}
	set := b.Sys(unix.SYS_SETGROUPS, spawn.Int(len(u.AdditionalGids)), groups)
	if len(u.AdditionalGids) == 0 && b.ns.has(unix.CLONE_NEWUSER) {
		set.Ignore(unix.EPERM) // denied for good in this user namespace
	}
	uid, gid := spawn.Uint(uint64(u.UID)), spawn.Uint(uint64(u.GID))
	b.Doing("become", fmt.Sprintf("group %d", u.GID))
	b.Sys(unix.SYS_SETRESGID, gid, gid, gid)
	b.Doing("become", fmt.Sprintf("user %d", u.UID))
	b.Sys(unix.SYS_SETRESUID, uid, uid, uid)
	b.setCapabilities(c)
	umask := uint32(0o022)
	if u.Umask != nil {
		umask = *u.Umask
	}
	b.Sys(unix.SYS_UMASK, spawn.Uint(uint64(umask)))
}

// enterAsRoot tries the working directory while root: the user may have no
// permission to enter it by name, which has to work as it does elsewhere. On a
// file system where root has none the user tries.
func (b *builder) enterAsRoot() {
	b.Doing("change to", "working directory "+b.process.Cwd)
	b.entered = b.NewReg()
	done, denied := b.NewLabel(), b.NewLabel()
	b.Sys(unix.SYS_CHDIR, b.Str(b.process.Cwd)).Else(denied, unix.EACCES, unix.EPERM)
	b.checkReachable()
	b.Set(b.entered, spawn.Int(1))
	b.Jump(done)
	b.Mark(denied)
	b.Set(b.entered, spawn.Int(0))
	b.Mark(done)
}

// workingDirectory is the rest of enterAsRoot, as the user.
func (b *builder) workingDirectory() {
	b.Doing("change to", "working directory "+b.process.Cwd)
	done := b.NewLabel()
	b.IfEqual(spawn.Val(b.entered), spawn.Int(1), done)
	b.Sys(unix.SYS_CHDIR, b.Str(b.process.Cwd))
	b.checkReachable()
	b.Mark(done)
}

// checkReachable makes sure that the working directory is below the root: one
// that is not, because a descriptor of the host was used to name it, shows as
// "(unreachable)/…".
func (b *builder) checkReachable() {
	buf := b.Space(4096)
	b.Sys(unix.SYS_GETCWD, buf, spawn.Int(4096))
	b.CheckByte(buf, '/', unix.ENOENT)
}

// setRlimits adds the resource limits. Raised ones need the privileges of the
// host; a low limit on open files would be in the way of setting up the rest.
func (b *builder) setRlimits(early bool) error {
	if !early {
		b.restoreOpenFiles()
	}
	for _, r := range b.process.Rlimits {
		res, ok := rlimitNumber(r.Type)
		if !ok {
			return errs.InvalidArgument("unknown rlimit %q", r.Type)
		}
		if b.ns.has(unix.CLONE_NEWUSER) && early == (res == unix.RLIMIT_NOFILE && r.Soft < 4096) {
			continue
		}
		b.Doing("set", "rlimit "+strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_")), "to", fmt.Sprintf("%d:%d", r.Soft, r.Hard))
		lim := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		b.Sys(unix.SYS_PRLIMIT64, spawn.Int(0), spawn.Int(res), b.Struct(unsafe.Pointer(&lim), unsafe.Sizeof(lim)), spawn.Int(0))
	}
	return nil
}

// restoreOpenFiles undoes what the Go runtime does to every program at its
// start, raising the soft limit on open files: a container should get the one
// this program was started with.
func (b *builder) restoreOpenFiles() {
	for _, r := range b.process.Rlimits {
		if r.Type == "RLIMIT_NOFILE" {
			return
		}
	}
	if lim := openFiles(); lim.Max != 0 {
		b.Doing("restore", "rlimit nofile")
		b.Sys(unix.SYS_PRLIMIT64, spawn.Int(0), spawn.Int(unix.RLIMIT_NOFILE), b.Struct(unsafe.Pointer(&lim), unsafe.Sizeof(lim)), spawn.Int(0))
	}
}

func rlimitNumber(name string) (int, bool) {
	switch name {
	case "RLIMIT_CPU":
		return unix.RLIMIT_CPU, true
	case "RLIMIT_FSIZE":
		return unix.RLIMIT_FSIZE, true
	case "RLIMIT_DATA":
		return unix.RLIMIT_DATA, true
	case "RLIMIT_STACK":
		return unix.RLIMIT_STACK, true
	case "RLIMIT_CORE":
		return unix.RLIMIT_CORE, true
	case "RLIMIT_RSS":
		return unix.RLIMIT_RSS, true
	case "RLIMIT_NPROC":
		return unix.RLIMIT_NPROC, true
	case "RLIMIT_NOFILE":
		return unix.RLIMIT_NOFILE, true
	case "RLIMIT_MEMLOCK":
		return unix.RLIMIT_MEMLOCK, true
	case "RLIMIT_AS":
		return unix.RLIMIT_AS, true
	case "RLIMIT_LOCKS":
		return unix.RLIMIT_LOCKS, true
	case "RLIMIT_SIGPENDING":
		return unix.RLIMIT_SIGPENDING, true
	case "RLIMIT_MSGQUEUE":
		return unix.RLIMIT_MSGQUEUE, true
	case "RLIMIT_NICE":
		return unix.RLIMIT_NICE, true
	case "RLIMIT_RTPRIO":
		return unix.RLIMIT_RTPRIO, true
	case "RLIMIT_RTTIME":
		return unix.RLIMIT_RTTIME, true
	}
	return 0, false
}

// setNames adds hostname and domain name.
func (b *builder) setNames() error {
	for _, n := range []struct {
		what, name string
		nr         uintptr
	}{{"hostname", b.spec.Hostname, unix.SYS_SETHOSTNAME}, {"domain name", b.spec.Domainname, unix.SYS_SETDOMAINNAME}} {
		if n.name == "" {
			continue
		}
		if !b.ns.has(unix.CLONE_NEWUTS) {
			return errs.InvalidArgument("cannot set a %s in the host's uts namespace", n.what)
		}
		b.Doing("set", n.what+" "+n.name)
		b.Sys(n.nr, b.Str(n.name), spawn.Int(len(n.name)))
	}
	return nil
}

// labels adds the labels of security modules. They are written to attr/exec,
// which the kernel applies at execve.
func (b *builder) labels() error {
	p := b.process
	if p == nil {
		return nil
	}
	if p.ApparmorProfile != "" {
		enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
		if !strings.HasPrefix(string(enabled), "Y") {
			if p.ApparmorProfile == "unconfined" {
				return nil
			}
			return errs.NotImplemented("cannot apply AppArmor profile %q: this kernel has no AppArmor", p.ApparmorProfile)
		}
		b.Doing("apply", "AppArmor profile "+p.ApparmorProfile)
		if err := b.writeHostProc("thread-self/attr/apparmor/exec", "exec "+p.ApparmorProfile); err != nil {
			return err
		}
	}
	if p.SelinuxLabel != "" {
		if !SELinux() {
			return errs.NotImplemented("cannot apply SELinux label %q: this kernel has no SELinux, or it is off", p.SelinuxLabel)
		}
		b.Doing("apply", "SELinux label "+p.SelinuxLabel)
		return b.writeHostProc("thread-self/attr/exec", p.SelinuxLabel)
	}
	return nil
}

// SELinux says whether this kernel has SELinux, and it is on.
func SELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// mountLabel is the SELinux context of the container's own file systems. Without
// SELinux nobody reads labels, and file systems refuse the option: a container
// whose process asks for no label of its own is not less confined for it.
func (b *builder) mountLabel() string {
	if b.spec.Linux.MountLabel == "" || !SELinux() {
		return ""
	}
	return b.spec.Linux.MountLabel
}

// joinKeyring gives the container a session keyring of its own.
func (b *builder) joinKeyring(skip bool) {
	if skip {
		return
	}
	name := spawn.Int(0)
	if b.id != "" {
		name = b.Str("_ses." + b.id)
	}
	b.Doing("create", "a session keyring")
	b.Sys(unix.SYS_KEYCTL, spawn.Int(unix.KEYCTL_JOIN_SESSION_KEYRING), name).Ignore(unix.ENOSYS, unix.EPERM)
}
