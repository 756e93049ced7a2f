package ocirt

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// procRoot is the host's procfs, opened once and checked to be one, so that no
// write to it can be led elsewhere by a mount or a symlink.
var procRoot = sync.OnceValues(func() (*os.File, error) {
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		unix.Close(fd)
		return nil, fmt.Errorf("/proc is not a procfs")
	}
	return os.NewFile(uintptr(fd), "/proc"), nil
})

// procHow is how files of procfs are opened: nothing mounted over a part of it
// is believed, and of its magic links none is followed.
const procHow = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openProc opens a path below the host's /proc.
func openProc(path string, flags int) (*os.File, error) {
	root, err := procRoot()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: procHow})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/" + path, Err: err}
	}
	return os.NewFile(uintptr(fd), "/proc/"+path), nil
}

// startTime reads field 22 of /proc/PID/stat. The name of the program, field 2,
// may contain anything, so counting starts at the last parenthesis.
func startTime(pid int) (uint64, error) {
	f, err := openProc(fmt.Sprintf("%d/stat", pid), unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var buf [1024]byte
	n, err := unix.Read(int(f.Fd()), buf[:])
	if err != nil {
		return 0, err
	}
	return parseStartTime(buf[:n])
}

func parseStartTime(stat []byte) (uint64, error) {
	i := len(stat) - 1
	for i >= 0 && stat[i] != ')' {
		i--
	}
	field, in := 2, false
	var v uint64
	for _, c := range stat[i+1:] {
		switch {
		case c == ' ' || c == '\n':
			if in && field == 22 {
				return v, nil
			}
			in = false
		default:
			if !in {
				field++
				in = true
			}
			if field == 22 {
				if c < '0' || c > '9' {
					return 0, fmt.Errorf("unexpected /proc/PID/stat: %q", stat)
				}
				v = v*10 + uint64(c-'0')
			}
		}
	}
	return 0, fmt.Errorf("unexpected /proc/PID/stat: %q", stat)
}
