package ocirt

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// openConsole makes a terminal in the container's own devpts, shows it as
// /dev/console and hands its master to the parent. Only the descriptor of the
// devpts that was just mounted is trusted, no path.
func (b *builder) openConsole() error {
	b.Doing("open", "a terminal")
	master := b.NewReg()
	flags := spawn.Int(unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC)
	opened := false
	for i := range b.mounts {
		if p := &b.mounts[i]; p.Type == "devpts" && p.Destination == "/dev/pts" && !p.bind {
			b.Sys(unix.SYS_OPENAT, p.src(), b.Str("ptmx"), flags).Save(master)
			opened = true
		}
	}
	switch {
	case !opened && b.based:
		f, err := os.OpenFile("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return fmt.Errorf("cannot open a terminal: %w", err)
		}
		fd, err := b.own(f)
		if err != nil {
			return err
		}
		b.Set(master, fd)
	case !opened:
		b.Sys(unix.SYS_OPENAT, spawn.Int(unix.AT_FDCWD), b.Str("/dev/ptmx"), flags).Save(master)
	}
	b.slave = b.NewReg()
	b.terminalPair(master)

	b.Doing("mount", "the terminal", "on", "/dev/console")
	mnt := b.NewReg()
	b.cloneOf(mnt, spawn.Val(b.slave), false)
	b.target("/dev/console", false)
	b.moveTo(spawn.Val(mnt), spawn.Val(b.temp))
	b.shut(b.temp)
	b.shut(mnt)
	return nil
}

// terminalPair opens the other end of a master, sets its size, and sends the
// master to the parent.
func (b *builder) terminalPair(master spawn.Reg) {
	b.Doing("set up", "the terminal")
	b.Sys(unix.SYS_IOCTL, spawn.Val(master), spawn.Int(unix.TIOCSPTLCK), b.Space(8))
	b.Sys(unix.SYS_IOCTL, spawn.Val(master), spawn.Int(unix.TIOCGPTPEER), spawn.Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).Save(b.temp)
	// Out of the way of the standard streams, which it is about to become.
	b.Sys(unix.SYS_FCNTL, spawn.Val(b.temp), spawn.Int(unix.F_DUPFD_CLOEXEC), spawn.Int(b.floor)).Save(b.slave)
	b.shut(b.temp)
	if box := b.process.ConsoleSize; box != nil && (box.Height != 0 || box.Width != 0) {
		ws := unix.Winsize{Row: uint16(box.Height), Col: uint16(box.Width)}
		b.Sys(unix.SYS_IOCTL, spawn.Val(b.slave), spawn.Int(unix.TIOCSWINSZ), b.Struct(unsafe.Pointer(&ws), unsafe.Sizeof(ws)))
	}
	b.SendFD(spawn.Val(master))
	b.shut(master)
}

// devNull is what a stream nobody wants is connected to.
var devNull = sync.OnceValues(func() (*os.File, error) { return os.OpenFile("/dev/null", os.O_RDWR, 0) })

// passStreams gives the child its stdin, stdout and stderr and the extra files.
func (b *builder) passStreams(stdin, stdout, stderr *os.File) error {
	if b.process == nil {
		return nil
	}
	streams := []*os.File{stdin, stdout, stderr}
	if b.process.Terminal {
		streams = nil
	}
	for _, f := range append(streams, b.extra...) {
		if f == nil {
			null, err := devNull()
			if err != nil {
				return err
			}
			f = null
		}
		fd, err := b.pass(f)
		if err != nil {
			return err
		}
		b.streams = append(b.streams, stream{fd: fd, owned: ownable(f)})
	}
	return nil
}

// stream is a descriptor on its way to its final number.
type stream struct {
	fd    spawn.Arg
	owned bool // the user of the process is made its owner
}

// ownable says whether a stream may be given to the container's user, so that it
// can open /dev/stdout. The files and devices of the host may not.
func ownable(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// takeTerminal makes the terminal the controlling one of the session.
func (b *builder) takeTerminal() {
	if b.process.Terminal {
		b.Doing("set up", "the terminal")
		b.Sys(unix.SYS_IOCTL, spawn.Int(0), spawn.Int(unix.TIOCSCTTY), spawn.Int(0))
	}
}

// placeStreams moves the streams to 0, 1, 2 and up.
func (b *builder) placeStreams() {
	b.Doing("set up", "the standard streams")
	first := 0
	uid := b.process.User.UID
	if b.process.Terminal {
		for fd := range 3 {
			b.Sys(unix.SYS_DUP3, spawn.Val(b.slave), spawn.Int(fd), spawn.Int(0))
		}
		if !b.appears {
			b.takeTerminal()
		}
		if uid != 0 {
			b.Sys(unix.SYS_FCHOWN, spawn.Int(0), spawn.Uint(uint64(uid)), spawn.Int(-1)).Ignore()
		}
		first = 3
	}
	for i, s := range b.streams {
		fd := first + i
		b.Sys(unix.SYS_DUP3, s.fd, spawn.Int(fd), spawn.Int(0))
		if s.owned && uid != 0 && fd < 3 {
			// Not every stream can have an owner, and not every user one.
			b.Sys(unix.SYS_FCHOWN, spawn.Int(fd), spawn.Uint(uint64(uid)), spawn.Int(-1)).Ignore()
		}
	}
}
