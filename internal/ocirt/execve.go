package ocirt

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// defaultPath is what execvp searches when there is no PATH at all.
const defaultPath = "/bin:/usr/bin"

// candidates are the files that may be meant by the name of a program: execvp's
// rule, applied inside the container.
func (b *builder) candidates() []string {
	name := b.process.Args[0]
	if b.execPath != "" {
		name = b.execPath
	}
	if strings.Contains(name, "/") {
		return []string{name}
	}
	b.searched = true
	path := defaultPath
	for _, e := range b.process.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var list []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		list = append(list, strings.TrimRight(dir, "/")+"/"+name)
	}
	return list
}

// environment is that of the process, with HOME as the specification's users
// expect it.
func (b *builder) environment() []string {
	for _, e := range b.process.Env {
		if strings.HasPrefix(e, "HOME=") {
			return b.process.Env
		}
	}
	env := make([]string, 0, len(b.process.Env)+1)
	return append(append(env, b.process.Env...), "HOME="+b.home)
}

// lookUp adds steps that fail the way execute will. They are for a process that
// waits between create and start: who creates it should learn of a missing
// program then.
func (b *builder) lookUp() {
	list := b.candidates()
	found := b.NewLabel()
	denied := b.NewReg()
	b.beginExec()
	b.Set(denied, spawn.Int(int(unix.ENOENT)))
	access := func(path string) spawn.Step {
		return b.Sys(unix.SYS_FACCESSAT2, spawn.Int(unix.AT_FDCWD), b.Str(path), spawn.Int(unix.X_OK), spawn.Int(unix.AT_EACCESS))
	}
	access("/").Else(found, unix.EPERM, unix.ENOSYS) // a seccomp filter forbids to ask
	for _, path := range list {
		access(path).Then(found).Ignore(searchOn()...).KeepDenied(denied)
	}
	b.failExec(list, denied)
	b.Mark(found)
}

// execute adds the last steps: execve of every candidate.
func (b *builder) execute() {
	list := b.candidates()
	argv, envp := b.Strs(b.process.Args), b.Strs(b.environment())
	denied := b.NewReg()
	b.beginExec()
	b.Set(denied, spawn.Int(int(unix.ENOENT)))
	for _, path := range list {
		b.Sys(unix.SYS_EXECVE, b.Str(path), argv, envp).Ignore(searchOn()...).KeepDenied(denied).Last()
	}
	b.failExec(list, denied)
	b.execTo = b.Len()
}

// searchOn are the errnos that mean "not here".
func searchOn() []unixErrno {
	return []unixErrno{unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ESTALE, unix.ENODEV, unix.ETIMEDOUT}
}

func (b *builder) beginExec() {
	b.Doing("execute", b.process.Args[0])
	if b.execFrom == 0 {
		b.execFrom = b.Len()
		b.execMode = b.NewReg()
	}
}

// failExec ends the child because nothing could be executed. For a program that
// was named by a path the parent wants to know what is there.
func (b *builder) failExec(list []string, errno spawn.Reg) {
	if len(list) == 1 {
		path := b.Str(list[0])
		gone := b.NewLabel()
		b.Sys(unix.SYS_STATX, spawn.Int(unix.AT_FDCWD), path, spawn.Int(0), spawn.Int(unix.STATX_BASIC_STATS), b.statx).Else(gone)
		b.Peek16(b.execMode, b.statxField(28), 0xffff)
		b.Mark(gone)
	}
	b.Fail(spawn.Val(errno))
	b.execTo = b.Len()
}
