package shim

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidfdExit returns how the process of a pidfd has ended. It is EAGAIN while
// nobody has collected it; before Linux 6.15 it is another error.
func pidfdExit(f *os.File) (ws unix.WaitStatus, err error) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err = control(f, func(fd int) error { return unix.IoctlPidfdInfo(fd, &info) })
	if err == nil && info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		err = unix.EAGAIN
	}
	return unix.WaitStatus(info.Exit_code), err
}

// siginfo is the beginning of siginfo_t as waitid fills it in on 64-bit Linux.
type siginfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	_                  [104]byte
}

// peekZombie returns a child that has ended and was not collected, or 0.
func peekZombie() (pid int, err error) {
	var info siginfo
	const all = 0 // P_ALL
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, all, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno == unix.ECHILD {
		return 0, nil
	}
	if errno != 0 {
		return 0, errno
	}
	return int(info.pid), nil
}
