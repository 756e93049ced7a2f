package spawn

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mkpathArgs is the working memory of mkpath, prepared by the parent.
type mkpathArgs struct {
	path    uintptr // what to make
	pathLen uintptr
	rest    uintptr // what is still to walk; a buffer of restMax bytes
	done    uintptr // the path walked so far, without symlinks: "/a/b", or ""
	link    uintptr // target of a symlink
	how     uintptr // struct open_how for anything, not following a symlink
	howDir  uintptr // struct open_how for a directory
	dot     uintptr // "."
	empty   uintptr // ""
	dir     uintptr // 1 when the last component is to be a directory
}

const (
	pathMax  = 4096
	restMax  = 2 * pathMax
	maxLinks = 40
)

// beneath keeps a lookup inside the directory it starts from and off the links
// of procfs.
const beneath = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

func (p *Program) newMkpath(path string, dir bool) Arg {
	if p.walk == (mkpathArgs{}) { // the buffers are for all of a program
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath}
		howDir := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath}
		p.walk = mkpathArgs{
			rest:   p.mem.scratch(restMax),
			done:   p.mem.scratch(pathMax + 256),
			link:   p.mem.scratch(pathMax),
			how:    p.Struct(unsafe.Pointer(&how), unsafe.Sizeof(how)).v,
			howDir: p.Struct(unsafe.Pointer(&howDir), unsafe.Sizeof(howDir)).v,
			dot:    p.mem.str("."),
			empty:  p.mem.str(""),
		}
	}
	a := p.walk
	a.path, a.pathLen = p.mem.str(path), uintptr(len(path))
	if dir {
		a.dir = 1
	}
	return p.Struct(unsafe.Pointer(&a), unsafe.Sizeof(a))
}

// mkpath walks a path below the directory root and makes what is missing.
//
// It is a loop over components in the style of the kernel's own walk. done has
// no symlinks, so each step opens exactly one new component; a symlink is put in
// front of the rest. Nothing is ever looked up outside of root, because openat2
// sees to it, and whatever is made is made by one name in an opened directory.
//
//go:nosplit
//go:norace
func mkpath(m *mkpathArgs, root uintptr) syscall.Errno {
	var pos, doneLen, links uintptr
	restLen := m.pathLen
	if restLen > pathMax {
		return unix.ENAMETOOLONG
	}
	copyMem(m.rest, m.path, restLen)
	*(*byte)(pointer(m.done)) = 0
	for tries := 0; tries < restMax; tries++ {
		for pos < restLen && *(*byte)(pointer(m.rest + pos)) == '/' {
			pos++
		}
		if pos == restLen {
			return 0
		}
		end := pos
		for end < restLen && *(*byte)(pointer(m.rest + end)) != '/' {
			end++
		}
		n := end - pos
		if n == 1 && *(*byte)(pointer(m.rest + pos)) == '.' {
			pos = end
			continue
		}
		if n == 2 && *(*uint16)(pointer(m.rest + pos)) == '.'|'.'<<8 {
			for doneLen > 0 && *(*byte)(pointer(m.done + doneLen)) != '/' {
				doneLen--
			}
			*(*byte)(pointer(m.done + doneLen)) = 0
			pos = end
			continue
		}
		if n > 255 || doneLen+n+2 > pathMax {
			return unix.ENAMETOOLONG
		}
		*(*byte)(pointer(m.done + doneLen)) = '/'
		copyMem(m.done+doneLen+1, m.rest+pos, n)
		*(*byte)(pointer(m.done + doneLen + 1 + n)) = 0

		last := end
		for last < restLen && *(*byte)(pointer(m.rest + last)) == '/' {
			last++
		}
		fd, e := openIn(root, m.done, m.how)
		if e == unix.ENOENT {
			if e := m.create(root, doneLen, last == restLen); e != 0 && e != unix.EEXIST {
				return e
			}
			continue // and look at it again: somebody may have been faster
		}
		if e != 0 {
			return e
		}
		size, isLink := m.readlink(fd)
		if !isLink {
			doneLen += 1 + n
			pos = end
			continue
		}
		if links++; links > maxLinks {
			return unix.ELOOP
		}
		tail := restLen - end
		if size+tail > restMax {
			return unix.ENAMETOOLONG
		}
		copyMem(m.rest+size, m.rest+end, tail)
		copyMem(m.rest, m.link, size)
		restLen = size + tail
		pos = 0
		if *(*byte)(pointer(m.link)) == '/' {
			doneLen = 0
		}
		*(*byte)(pointer(m.done + doneLen)) = 0
	}
	return unix.ELOOP
}

// readlink closes fd and reads the target of the symlink that it is, if it is one,
// into link. It is not a part of mkpath because what a function calls is on its
// stack, which is deepest below create: fuzzing needs some of it.
//
//go:nosplit
//go:norace
//go:noinline
func (m *mkpathArgs) readlink(fd uintptr) (size uintptr, isLink bool) {
	size, _, e := syscall.RawSyscall6(unix.SYS_READLINKAT, fd, m.empty, m.link, pathMax, 0, 0)
	syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
	return size, e == 0
}

// create makes the last component of done, which starts after parentLen bytes.
//
//go:nosplit
//go:norace
func (m *mkpathArgs) create(root, parentLen uintptr, last bool) syscall.Errno {
	*(*byte)(pointer(m.done + parentLen)) = 0
	parent := m.done
	if parentLen == 0 {
		parent = m.dot
	}
	fd, e := openIn(root, parent, m.howDir)
	*(*byte)(pointer(m.done + parentLen)) = '/'
	if e != 0 {
		return e
	}
	name := m.done + parentLen + 1
	if last && m.dir == 0 {
		_, _, e = syscall.RawSyscall6(unix.SYS_MKNODAT, fd, name, unix.S_IFREG|0o755, 0, 0, 0)
	} else {
		_, _, e = syscall.RawSyscall6(unix.SYS_MKDIRAT, fd, name, 0o755, 0, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
	return e
}

//go:nosplit
//go:norace
func openIn(root, path, how uintptr) (uintptr, syscall.Errno) {
	for range 1000 {
		fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT2, root, path, how, unix.SizeofOpenHow, 0, 0)
		if e != unix.EAGAIN && e != unix.EINTR {
			return fd, e
		}
	}
	return 0, unix.EAGAIN
}

// copyMem copies n bytes; the ranges may overlap.
//
//go:nosplit
//go:norace
func copyMem(dst, src, n uintptr) {
	if dst < src {
		for i := uintptr(0); i < n; i++ {
			*(*byte)(pointer(dst + i)) = *(*byte)(pointer(src + i))
		}
		return
	}
	for i := n; i > 0; i-- {
		*(*byte)(pointer(dst + i - 1)) = *(*byte)(pointer(src + i - 1))
	}
}
