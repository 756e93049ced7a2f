package shim

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
)

// stdio is both ends of a process's standard streams.
type stdio struct {
	theirs [3]*os.File // what the process gets; nil is /dev/null or a terminal
	in     *os.File
	out    [3]*os.File // by stream
	inodes [3]uint64   // of the output pipes
}

// newStdio makes the pipes of a process. A terminal is made by the runtime.
//
// The process gets output pipes opened for reading and writing. As it is then
// its own reader, it does not get SIGPIPE when io dies, but waits for the next
// one; and as io only ever reads, the end of its last writer is still the end.
func newStdio(terminal, openStdin, detach bool) (*stdio, error) {
	s := &stdio{}
	if terminal {
		return s, nil
	}
	if openStdin {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, errs.System("cannot make a pipe: %w", err)
		}
		unix.SetNonblock(p[1], true)
		s.theirs[0] = os.NewFile(uintptr(p[0]), "stdin")
		s.in = os.NewFile(uintptr(p[1]), "stdin")
	}
	if detach {
		return s, nil
	}
	for _, stream := range []logs.Stream{logs.Stdout, logs.Stderr} {
		if err := s.pipe(stream); err != nil {
			s.closeOurs()
			s.closeTheirs()
			return nil, errs.System("cannot make a pipe: %w", err)
		}
	}
	return s, nil
}

func (s *stdio) pipe(stream logs.Stream) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	unix.Close(p[1])
	var st unix.Stat_t
	if err := unix.Fstat(p[0], &st); err != nil {
		unix.Close(p[0])
		return err
	}
	// Opening it again gives the process a description of its own, whose mode
	// (blocking) does not change with ours.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", p[0]), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(p[0])
		return err
	}
	unix.SetNonblock(p[0], true)
	s.inodes[stream] = st.Ino
	s.out[stream] = os.NewFile(uintptr(p[0]), stream.String())
	s.theirs[stream] = os.NewFile(uintptr(fd), stream.String())
	return nil
}

// console takes over the terminal the runtime has made.
func (s *stdio) console(tty *os.File) {
	if tty == nil {
		return
	}
	tty = pollable(tty)
	s.in, s.out[logs.Stdout] = tty, tty
}

// pollable makes a file whose reads wait in the poller and not in a thread.
func pollable(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	f.Close()
	if err != nil {
		return nil
	}
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), f.Name())
}

func (s *stdio) closeTheirs() {
	for i, f := range s.theirs {
		if f != nil {
			f.Close()
			s.theirs[i] = nil
		}
	}
}

func (s *stdio) closeOurs() {
	if s.in != nil {
		s.in.Close()
	}
	for _, f := range s.out {
		if f != nil {
			f.Close()
		}
	}
}
