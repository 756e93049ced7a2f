package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/thread"
	"github.com/gantry-containers/gantry/internal/timerslack"
)

// runtimeCall is one execution of a runtime.
type runtimeCall struct {
	args    []string // without the container's ID, which comes last
	process *specs.Process
	send    bool   // give the runtime the process in a file
	io      *stdio // of the process the runtime makes; nil when it makes none

	private bool // execute the runtime in a mount namespace with what follows
	mounts  []mount.Mount
	netns   *os.File

	dir    string   // scratch
	errors *os.File // what the runtime writes to standard error, if that is not the process's
}

// consolePatience is how long the terminal may take to arrive after the runtime
// has ended well. It sends it before.
const consolePatience = 2 * time.Second

// spawn executes a runtime that makes a process, and returns the process's
// number and the master of its terminal.
func (x *external) spawn(ctx context.Context, c *runtimeCall) (pid int, console *os.File, err error) {
	if err := x.scratch(c); err != nil {
		return 0, nil, err
	}
	defer os.RemoveAll(c.dir)
	pidFile := filepath.Join(c.dir, "pid")
	c.args = append(c.args, "--pid-file", pidFile)
	if c.send {
		raw, err := json.Marshal(c.process)
		if err != nil {
			return 0, nil, err
		}
		file := filepath.Join(c.dir, "process.json")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			return 0, nil, errs.System("cannot tell the runtime about the process: %w", err)
		}
		c.args = append(c.args, "--process", file)
	}
	var l *net.UnixListener
	if c.process.Terminal {
		if l, err = listenConsole(c.dir); err != nil {
			return 0, nil, errs.System("cannot listen for the terminal: %w", err)
		}
		defer l.Close()
		// Relative, because the path of a socket must be short.
		c.args = append(c.args, "--console-socket", filepath.Join(filepath.Base(c.dir), consoleName))
	}
	if err := x.execute(ctx, c); err != nil {
		return 0, nil, err
	}
	if pid, err = readPid(pidFile); err != nil {
		return 0, nil, errs.System("the runtime %s does not tell the process it has started: %w", x.Name, err)
	}
	if l != nil {
		if console, err = acceptConsole(l); err != nil {
			return 0, nil, errs.System("the runtime %s does not hand over the terminal: %w", x.Name, err)
		}
	}
	return pid, console, nil
}

// call executes the runtime for something that leaves no process.
func (x *external) call(ctx context.Context, c *runtimeCall) error {
	if err := x.scratch(c); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	return x.execute(ctx, c)
}

func (x *external) scratch(c *runtimeCall) (err error) {
	if c.dir, err = os.MkdirTemp(x.bundle, "call-"); err != nil {
		return errs.System("cannot call the runtime %s: %w", x.Name, err)
	}
	return nil
}

// execute runs the program until it ends.
func (x *external) execute(ctx context.Context, c *runtimeCall) error {
	logFile := filepath.Join(c.dir, "log")
	args := append(append([]string{}, x.Args...), "--root", x.root, "--log", logFile, "--log-format", "json")
	cmd := exec.CommandContext(ctx, x.Path, append(append(args, c.args...), x.id)...)
	cmd.Dir = x.bundle
	cmd.Env = os.Environ()
	if os.Getenv("PATH") == "" {
		cmd.Env = append(cmd.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	if err := c.connect(cmd); err != nil {
		return errs.System("cannot call the runtime %s: %w", x.Name, err)
	}
	defer closeFile(c.errors)
	// One that io did not survive must not go on making a container which the
	// next io has given up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	defer x.orphans.spawning()()
	err := x.runLocked(cmd, c)
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return errs.System("cannot run the runtime %s: %w", x.Name, err)
	}
	return c.explain(x.Name, exit, logFile)
}

// connect gives the runtime the streams it is to hand on to the process. Where
// they are none of the process's, what the runtime writes is kept.
func (c *runtimeCall) connect(cmd *exec.Cmd) error {
	if c.io != nil && !c.process.Terminal {
		// Not a nil *os.File, which os/exec would take for a file.
		if f := c.io.theirs[0]; f != nil {
			cmd.Stdin = f
		}
		if f := c.io.theirs[logs.Stdout]; f != nil {
			cmd.Stdout = f
		}
		if f := c.io.theirs[logs.Stderr]; f != nil {
			cmd.Stderr = f
		}
		return nil
	}
	fd, err := unix.MemfdCreate("gantry-runtime", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	c.errors = os.NewFile(uintptr(fd), "stderr")
	cmd.Stderr = c.errors
	return nil
}

// part is a mount of a part of a file system, which runtimes cannot make: they
// find it in the bundle and bind it.
type part struct {
	at   string
	tree *os.File
}

// takeParts makes such mounts and returns the list with binds in their place. The
// caller closes them.
func (x *external) takeParts(list []specs.Mount) ([]specs.Mount, error) {
	out := slices.Clone(list)
	for i, m := range out {
		inside := func(o string) bool { return strings.HasPrefix(o, mount.Subdir) }
		if !slices.ContainsFunc(m.Options, inside) {
			continue
		}
		tree, err := mount.Detached([]mount.Mount{{Type: m.Type, Source: m.Source, Options: m.Options}})
		if err != nil {
			return nil, fmt.Errorf("cannot mount %s: %w", m.Destination, err)
		}
		p := part{filepath.Join(x.bundle, "mount"+strconv.Itoa(i)), tree}
		x.parts = append(x.parts, p)
		if fi, serr := tree.Stat(); serr != nil {
			err = serr
		} else if fi.IsDir() {
			err = os.Mkdir(p.at, 0o700)
		} else {
			err = os.WriteFile(p.at, nil, 0o600)
		}
		if err != nil {
			return nil, err
		}
		out[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: p.at, Options: []string{"bind", "ro", "rprivate"}}
	}
	return out, nil
}

func (x *external) closeParts() {
	for _, p := range x.parts {
		p.tree.Close()
	}
	x.parts = nil
}

// runLocked executes the program from a thread that lives as long as it, as its
// parent-death signal wants.
func (x *external) runLocked(cmd *exec.Cmd, c *runtimeCall) error {
	var root *os.File
	if len(c.mounts) > 0 {
		var err error
		if root, err = mount.Detached(c.mounts); err != nil {
			return err
		}
		defer root.Close()
	}
	return thread.Borrow(func() (bool, error) {
		if !c.private {
			return true, run(cmd)
		}
		err := x.enterBundle(root, c.netns)
		if err == nil {
			err = run(cmd)
		}
		return false, err
	})
}

func run(cmd *exec.Cmd) (err error) {
	timerslack.Strictly(func() { err = cmd.Run() })
	return err
}

// enterBundle gives the calling thread a mount namespace of its own in which the
// bundle is complete: so the root file system and the network namespace appear
// nowhere on the host, and they go by themselves. The container's mount namespace
// is a copy of that one. Nothing else is changed there, so that what a user wants
// to travel between host and container still does.
func (x *external) enterBundle(root, netns *os.File) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot create a mount namespace: %w", err)
	}
	if err := makePrivate(x.bundle); err != nil {
		return fmt.Errorf("cannot keep the mounts of %s to itself: %w", x.bundle, err)
	}
	if root != nil {
		err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, filepath.Join(x.bundle, "rootfs"), unix.MOVE_MOUNT_F_EMPTY_PATH)
		if err != nil {
			return fmt.Errorf("cannot mount the root file system: %w", err)
		}
	}
	for _, p := range x.parts {
		if err := unix.MoveMount(int(p.tree.Fd()), "", unix.AT_FDCWD, p.at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("cannot mount a part of an image: %w", err)
		}
	}
	if netns != nil {
		source := "/proc/thread-self/fd/" + strconv.Itoa(int(netns.Fd()))
		if err := unix.Mount(source, x.netns(), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot bind the network namespace: %w", err)
		}
	}
	return nil
}

// makePrivate keeps what is mounted below dir from appearing elsewhere: it
// changes the mount dir is in, which is the first of its ancestors that can be
// changed.
func makePrivate(dir string) error {
	for {
		err := unix.Mount("", dir, "", unix.MS_PRIVATE, "")
		if err != unix.EINVAL || dir == "/" {
			return err
		}
		dir = filepath.Dir(dir)
	}
}

const consoleName = "tty"

// listenConsole makes the socket a runtime sends the terminal to.
func listenConsole(dir string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	// By descriptor, because the path of a socket must be short.
	path := filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), consoleName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false) // it goes with its directory
	}
	return l, err
}

// acceptConsole receives the terminal.
func acceptConsole(l *net.UnixListener) (*os.File, error) {
	deadline := time.Now().Add(consolePatience)
	l.SetDeadline(deadline)
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	name := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4*8))
	_, oobn, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, err
	}
	fds, err := parseFDs(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("it sent %d descriptors instead of one", len(fds))
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
