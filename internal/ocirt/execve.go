package ocirt

import (
	"errors"
	"fmt"
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
	denied, kind := b.NewReg(), b.NewReg()
	b.beginExec()
	b.Set(denied, spawn.Int(int(unix.ENOENT)))
	access := func(path string) spawn.Step {
		return b.Sys(unix.SYS_FACCESSAT2, spawn.Int(unix.AT_FDCWD), b.Str(path), spawn.Int(unix.X_OK), spawn.Int(unix.AT_EACCESS))
	}
	access("/").Else(found, unix.EPERM, unix.ENOSYS) // a seccomp filter forbids to ask
	for _, path := range list {
		dir, next := b.NewLabel(), b.NewLabel()
		access(path).Else(next, searchOn()...).KeepDenied(denied)
		// X_OK of a directory says that one may pass through it.
		b.Sys(unix.SYS_STATX, spawn.Int(unix.AT_FDCWD), b.Str(path), spawn.Int(0), spawn.Int(unix.STATX_TYPE), b.statx).Else(found)
		b.Peek16(kind, b.statxField(28), unix.S_IFMT)
		b.IfEqual(spawn.Val(kind), spawn.Int(unix.S_IFDIR), dir)
		b.Jump(found)
		b.Mark(dir)
		b.Set(denied, spawn.Int(int(unix.EACCES)))
		b.Mark(next)
	}
	b.failExec(list, denied)
	b.Mark(found)
}

// execute adds the last steps: execve of every candidate. Of a process that was
// released nobody waits to hear that it failed: it tells its stderr.
func (b *builder) execute() {
	if len(b.process.Args) == 0 { // see holder
		b.Doing("execute", "nothing")
		b.Fail(spawn.Int(int(unix.ENOENT)))
		return
	}
	if b.waits {
		failed, errno := b.NewLabel(), b.NewReg()
		b.Rescue(failed, errno)
		defer func() {
			b.Mark(failed)
			b.tellWhy(errno)
		}()
	}
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

// tellWhy writes the sentence of ExecError to the process's own stderr and exits
// as shells do. errno has what execve said.
func (b *builder) tellWhy(errno spawn.Reg) {
	tell := func(err error) {
		code := 126
		if errors.Is(err, ErrNotFound) {
			code = 127
		}
		line := err.Error() + "\n"
		b.Sys(unix.SYS_WRITE, spawn.Int(2), b.Str(line), spawn.Int(len(line))).Ignore()
		b.Sys(unix.SYS_EXIT_GROUP, spawn.Int(code))
	}
	e := ExecError{Path: b.process.Args[0], Searched: b.searched}
	for _, e.Errno = range []unixErrno{
		unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.EPERM, unix.ENOEXEC, unix.ELOOP, unix.ENAMETOOLONG,
		unix.E2BIG, unix.ENOMEM, unix.ETXTBSY, unix.EIO, unix.EINVAL,
	} {
		this, next := b.NewLabel(), b.NewLabel()
		b.IfEqual(spawn.Val(errno), spawn.Int(int(e.Errno)), this)
		b.Jump(next)
		b.Mark(this)
		if e.Errno == unix.ENOENT {
			// What was named by a path and is there lacks its loader.
			gone := b.NewLabel()
			b.IfEqual(spawn.Val(b.execMode), spawn.Int(0), gone)
			tell(&ExecError{Path: e.Path, Errno: e.Errno, Exists: true})
			b.Mark(gone)
		}
		tell(&e)
		b.Mark(next)
	}
	tell(fmt.Errorf("exec: %q: it cannot be executed", e.Path))
}
