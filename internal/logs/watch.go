package logs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watches is the process's one inotify instance: the kernel allows few of them
// per user, and a daemon may have hundreds of followers.
var watches struct {
	sync.Mutex // guards everything below
	file       *os.File
	dirs       map[int32]*watchedDir
}

type watchedDir struct {
	listeners map[chan struct{}]struct{}
}

const watchMask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE

// watch returns a channel that receives after anything happened in the folder of
// path, and a function that ends it. Where inotify cannot be had the channel
// ticks instead.
func watch(path string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	watches.Lock()
	defer watches.Unlock()
	if watches.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return tick(c)
		}
		watches.file = os.NewFile(uintptr(fd), "inotify")
		watches.dirs = map[int32]*watchedDir{}
		go dispatch(watches.file)
	}
	wd, err := addWatch(watches.file, filepath.Dir(path))
	if err != nil {
		return tick(c)
	}
	d := watches.dirs[wd]
	if d == nil {
		d = &watchedDir{listeners: map[chan struct{}]struct{}{}}
		watches.dirs[wd] = d
	}
	d.listeners[c] = struct{}{}
	return c, func() { unwatch(wd, d, c) }
}

func addWatch(f *os.File, dir string) (wd int32, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(fd uintptr) {
		var n int
		n, err = unix.InotifyAddWatch(int(fd), dir, watchMask)
		wd = int32(n)
	})
	if cerr != nil {
		return 0, cerr
	}
	return wd, err
}

func unwatch(wd int32, d *watchedDir, c chan struct{}) {
	watches.Lock()
	defer watches.Unlock()
	delete(d.listeners, c)
	if len(d.listeners) > 0 || watches.dirs[wd] != d {
		return
	}
	delete(watches.dirs, wd)
	if len(watches.dirs) == 0 {
		// The last follower: dispatch ends with the file.
		watches.file.Close()
		watches.file = nil
		return
	}
	if rc, err := watches.file.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}

func dispatch(f *os.File) {
	var buf [4096]byte
	for {
		n, err := f.Read(buf[:])
		if err != nil {
			return
		}
		watches.Lock()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent && watches.file == f; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			b = b[unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])):]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				for _, d := range watches.dirs {
					d.wake()
				}
			} else if d := watches.dirs[wd]; d != nil {
				d.wake()
			}
		}
		watches.Unlock()
	}
}

func (d *watchedDir) wake() {
	for c := range d.listeners {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func tick(c chan struct{}) (<-chan struct{}, func()) {
	t := time.NewTicker(200 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-t.C:
				select {
				case c <- struct{}{}:
				default:
				}
			case <-done:
				t.Stop()
				return
			}
		}
	}()
	return c, sync.OnceFunc(func() { close(done) })
}
