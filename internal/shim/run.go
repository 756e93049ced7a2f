package shim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/spawn"
	"github.com/gantry-containers/gantry/internal/timerslack"
)

// Main is gantry-shim: `gantry-shim io|net --exec-root DIR`, and `version`, which
// prints the versions of the kept state it can take over. It returns the exit
// code.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "version" {
		fmt.Fprintln(stdout, Version)
		return 0
	}
	usage := func() int {
		fmt.Fprintln(stderr, "usage: gantry-shim io|net --exec-root DIR\n       gantry-shim version")
		return 2
	}
	if len(args) == 0 {
		return usage()
	}
	flags := flag.NewFlagSet("gantry-shim", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	root := flags.String("exec-root", "/run/gantry", "where state and sockets are")
	if flags.Parse(args[1:]) != nil || flags.NArg() > 0 || !filepath.IsAbs(*root) {
		return usage()
	}
	var err error
	switch args[0] {
	case "io":
		err = runIO(*root)
	case "net":
		err = runNet(*root)
	default:
		return usage()
	}
	if errors.Is(err, errServed) {
		ready(servedLine)
		return 1
	}
	if err != nil {
		ready(err.Error() + "\n")
		fmt.Fprintf(stderr, "gantry-shim: %v\n", err)
		return 1
	}
	return 0
}

// settle makes a role what both have to be: small, protected, and unreadable to
// others.
func settle(execRoot string) (*slog.Logger, error) {
	// They are idle most of the time, and have to be small then (package heap).
	debug.SetGCPercent(40)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become undumpable: %w", err)
	}
	unix.Umask(0o022)
	timerslack.Relax()
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("gantry-shim has to run as root")
	}
	// net was executed as /proc/self/exe, and would be "exe" to who asks what holds a port.
	_ = os.WriteFile("/proc/self/comm", []byte("gantry-shim"), 0)
	// Not allowed without CAP_SYS_RESOURCE; then it is as others are.
	os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0)
	f, err := openLog(logPath(execRoot))
	if err != nil {
		return nil, fmt.Errorf("cannot open the log of the shim: %w", err)
	}
	// Whatever the runtime has to say at a crash is in the log as well.
	unix.Dup3(int(f.Fd()), 2, 0)
	return slog.New(slog.NewTextHandler(f, nil)), nil
}

func openLog(path string) (*os.File, error) {
	const limit = 1 << 20
	if st, err := os.Stat(path); err == nil && st.Size() > limit {
		os.Rename(path, path+".1")
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// disinherit closes what the starter had open without meaning to pass it on: a
// shim lives long, and somebody may be waiting for the end of such a pipe.
// Everything of this process itself is close-on-exec.
func disinherit() {
	keep, _ := strconv.Atoi(os.Getenv(readyEnv))
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || fd == keep {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// ready tells whoever started this process how that went.
func ready(line string) {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	if err != nil {
		return
	}
	os.Unsetenv(readyEnv)
	f := os.NewFile(uintptr(fd), "ready")
	if f == nil {
		return
	}
	io.WriteString(f, line)
	f.Close()
}

func runIO(execRoot string) error {
	if err := ocirt.Protect(); err != nil {
		return err
	}
	state, err := readHandover()
	if err != nil {
		return fmt.Errorf("cannot read the state of the shim before: %w", err)
	}
	if state == nil {
		disinherit()
	}
	if fd, err := strconv.Atoi(os.Getenv(readyEnv)); err == nil {
		unix.CloseOnExec(fd)
	}
	if err := os.MkdirAll(filepath.Join(execRoot, "containers"), 0o700); err != nil {
		return err
	}
	log, err := settle(execRoot)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become the reaper of orphans: %w", err)
	}
	spawn.Lean()
	h := newHolder(execRoot, log)
	h.store = &storeClient{execRoot: execRoot, log: log, orphans: &h.orphans, again: h.holdAll}
	listener, err := h.open(state)
	if err != nil {
		return err
	}
	h.watchSignals()
	log.Info("the shim runs", "pid", os.Getpid(), "upgraded", state != nil)
	ready(readyLine)
	return h.serve(listener)
}

// open takes the exec root over: from the binary before this one, from an io
// that was killed, or as the first.
func (h *Holder) open(state *handover) (*net.UnixListener, error) {
	if state != nil {
		h.listener, h.lock = handed(state.Listener, "listener"), handed(state.Lock, "lock")
		l, err := net.FileListener(h.listener)
		if err != nil {
			return nil, fmt.Errorf("cannot take the listener over: %w", err)
		}
		h.store.ports = state.Ports
		if err := h.store.connect(nil); err != nil {
			h.log.Error("the net role is missing", "error", err)
			go h.store.revive()
		}
		h.restore(state)
		h.holdAll()
		h.store.renew()
		return l.(*net.UnixListener), nil
	}
	if err := h.takeLock(); err != nil {
		return nil, err
	}
	leaveCgroup(h.execRoot, h.log)
	kept := map[string]map[string]*os.File{}
	err := h.store.connect(func(k held, f *frame) {
		m := map[string]*os.File{}
		for i, name := range k.Names {
			m[name] = f.takeFD(i, name)
		}
		kept[k.Key] = m
	})
	if err != nil {
		return nil, err
	}
	h.adopt(kept)
	l, err := listen(SocketPath(h.execRoot))
	if err != nil {
		return nil, err
	}
	h.listener, err = l.File()
	return l, err
}

// takeLock makes this the only io of the exec root. One that was killed a moment
// ago may still be losing its lock, and one that begins, started by a daemon that
// has died since, may not answer yet: errServed once it does.
func (h *Holder) takeLock() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	f, err := os.OpenFile(filepath.Join(h.execRoot, "shim.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			h.lock = f
			return nil
		}
		if err != unix.EINTR && err != unix.EWOULDBLOCK || ctx.Err() != nil {
			f.Close()
			return fmt.Errorf("another shim serves %s and does not answer: %w", h.execRoot, err)
		}
		if c, err := net.Dial("unix", SocketPath(h.execRoot)); err == nil {
			c.Close()
			f.Close()
			return errServed
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *Holder) holdAll() {
	h.mu.Lock()
	var list []*task
	for _, t := range h.tasks {
		list = append(list, t)
	}
	h.mu.Unlock()
	for _, t := range list {
		if !t.over() && t.status().Pid != 0 {
			t.hold()
		}
	}
}

// watchSignals handles signals instead of ignoring them: what is ignored would
// be ignored in every container as well.
func (h *Holder) watchSignals() {
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	go func() {
		for s := range caught {
			if s == syscall.SIGTERM {
				h.terminated()
			}
		}
	}()
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	children := make(chan struct{}, 1)
	go h.orphans.run(children)
	go func() {
		for range died {
			select {
			case children <- struct{}{}:
			default:
			}
		}
	}()
	children <- struct{}{}
}

func runNet(execRoot string) error {
	disinherit()
	if fd, err := strconv.Atoi(os.Getenv(readyEnv)); err == nil {
		unix.CloseOnExec(fd)
	}
	if _, err := settle(execRoot); err != nil {
		return err
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	l, err := listen(netSocket(execRoot))
	if err != nil {
		return err
	}
	ready(readyLine)
	return newNetRole().serve(l)
}

// spawn starts a net role. It is nobody's to wait for: the reaper of orphans
// collects it.
func (s *storeClient) spawn() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	var p *os.Process
	timerslack.Strictly(func() {
		p, err = os.StartProcess("/proc/self/exe", []string{"gantry-shim", "net", "--exec-root", s.execRoot}, &os.ProcAttr{
			Dir: "/", Env: []string{readyEnv + "=3"}, Files: []*os.File{null, null, null, w},
		})
	})
	if err != nil {
		return err
	}
	p.Release()
	w.Close()
	line := make([]byte, 256)
	r.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := r.Read(line)
	if string(line[:n]) != readyLine {
		return fmt.Errorf("%s (%v)", line[:n], err)
	}
	return nil
}
