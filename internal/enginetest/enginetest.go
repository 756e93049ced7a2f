// Package enginetest runs real engines for tests: the built programs, with
// roots, socket, network and cgroups of their own, and nothing left afterwards.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/network"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/shim"
	"github.com/gantry-containers/gantry/internal/state"
)

// Engine is one engine of a test.
type Engine struct {
	Dir        string // everything of it is below
	data, exec string // the roots
	Bin        string // the directory of the programs
	Socket     string
	Args       []string // further flags of gantryd

	mu     sync.Mutex // guards what follows
	daemon *exec.Cmd
	log    *os.File
}

// New makes an engine with roots below dir that is not started yet. The
// programs are those of $GANTRY_BIN, or are built into dir.
func New(dir string, args ...string) (*Engine, error) {
	e := At(filepath.Join(dir, "data"), filepath.Join(dir, "exec"))
	e.Dir, e.Args, e.Socket = dir, args, filepath.Join(dir, "api.sock")
	var err error
	e.Bin, err = Programs(dir)
	return e, err
}

// At is the engine with these roots, to be purged.
func At(data, exec string) *Engine { return &Engine{data: data, exec: exec, Dir: filepath.Dir(data)} }

// Programs returns a directory with the built programs.
func Programs(dir string) (string, error) {
	if bin := os.Getenv("GANTRY_BIN"); bin != "" {
		return bin, nil
	}
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", bin, "github.com/gantry-containers/gantry/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the programs: %w\n%s", err, out)
	}
	return bin, nil
}

// Host is what a client is told: DOCKER_HOST or -H.
func (e *Engine) Host() string { return "unix://" + e.Socket }

// ExecRoot is where the engine's shim keeps its state.
func (e *Engine) ExecRoot() string { return e.exec }

// DataRoot is where images and containers are.
func (e *Engine) DataRoot() string { return e.data }

func (e *Engine) config() engine.Config {
	c := engine.Config{DataRoot: e.data, ExecRoot: e.exec}
	c.Defaults()
	return c
}

// Instance is the name the engine's things on the host begin with.
func (e *Engine) Instance() string { c := e.config(); return c.Instance() }

// Start starts the daemon and returns when it answers.
func (e *Engine) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	if e.log == nil {
		if e.log, err = os.Create(filepath.Join(e.Dir, "gantryd.log")); err != nil {
			return err
		}
	}
	args := append([]string{"--data-root", e.data, "--exec-root", e.exec, "-H", e.Host()}, e.Args...)
	e.daemon = exec.Command(filepath.Join(e.Bin, "gantryd"), args...)
	e.daemon.Stdout, e.daemon.Stderr = e.log, e.log
	e.daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := e.daemon.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	cmd := e.daemon
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if conn, err := net.Dial("unix", e.Socket); err == nil {
			fmt.Fprint(conn, "GET /_ping HTTP/1.0\r\n\r\n")
			answer := make([]byte, 64)
			n, _ := conn.Read(answer)
			conn.Close()
			if bytes.Contains(answer[:n], []byte("200 OK")) {
				return nil
			}
		}
		select {
		case err := <-ended:
			return fmt.Errorf("gantryd ended: %v\n%s", err, e.Log())
		case <-ctx.Done():
			return fmt.Errorf("gantryd does not answer\n%s", e.Log())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Log returns what the daemons of this engine have logged.
func (e *Engine) Log() string {
	b, _ := os.ReadFile(filepath.Join(e.Dir, "gantryd.log"))
	return string(b)
}

// Pid is the daemon's, 0 when it does not run.
func (e *Engine) Pid() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.daemon == nil || e.daemon.Process == nil {
		return 0
	}
	return e.daemon.Process.Pid
}

// Kill ends the daemon with the signal and returns when it is gone.
func (e *Engine) Kill(sig syscall.Signal) error {
	pid := e.Pid()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			return fmt.Errorf("gantryd did not end\n%s", e.Log())
		}
		time.Sleep(time.Millisecond)
	}
	e.mu.Lock()
	e.daemon = nil
	e.mu.Unlock()
	return nil
}

// Command returns a command of a client, "gantry" or "docker", for this engine.
func (e *Engine) Command(client string, args ...string) *exec.Cmd {
	path := client
	if client == "gantry" {
		path = filepath.Join(e.Bin, "gantry")
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.Host(), "GANTRY_HOST=", "DOCKER_CONFIG="+filepath.Join(e.Dir, "docker-config"), "DOCKER_CLI_HINTS=false")
	return cmd
}

// Run runs a gantry command and returns its standard output without the last
// newline; the error holds what it wrote to standard error.
func (e *Engine) Run(args ...string) (string, error) {
	return Output(e.Command("gantry", args...))
}

// Shim connects to the engine's shim.
func (e *Engine) Shim(ctx context.Context) (*shim.Client, error) { return shim.Dial(ctx, e.exec) }

// Close kills what runs and takes everything of the engine off the host.
func (e *Engine) Close(ctx context.Context) error {
	var failed []error
	if e.Pid() != 0 {
		if ids, err := e.Run("ps", "-aq", "--no-trunc"); err == nil && ids != "" {
			_, err := e.Run(append([]string{"rm", "-f", "-v"}, strings.Fields(ids)...)...)
			failed = append(failed, err)
		}
		failed = append(failed, e.Kill(syscall.SIGTERM))
	}
	failed = append(failed, e.Purge(ctx), os.RemoveAll(e.Dir))
	if e.log != nil {
		e.log.Close()
	}
	return errors.Join(failed...)
}

// Purge ends the shim and takes interfaces, tables, cgroups and mounts of an
// engine whose daemon has ended off the host.
func (e *Engine) Purge(ctx context.Context) error {
	var failed []error
	if c, err := e.Shim(ctx); err == nil {
		failed = append(failed, e.shutdown(ctx, c))
		c.Close()
	}
	return errors.Join(append(failed, e.purgeNetwork(ctx), e.purgeCgroups(), e.unmount())...)
}

// shutdown ends the shim. One that does not end has to say what it is doing, and is
// gone then.
func (e *Engine) shutdown(ctx context.Context, c *shim.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	now, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if err = c.Shutdown(ctx); err == nil || ctx.Err() == nil {
		return err
	}
	_ = syscall.Kill(now.Pid, syscall.SIGQUIT)
	for range 200 {
		if syscall.Kill(now.Pid, 0) != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = syscall.Kill(now.NetPid, syscall.SIGKILL)
	said, _ := os.ReadFile(filepath.Join(e.exec, "shim.log"))
	return fmt.Errorf("the shim does not end: %w; it says:\n%s", err, tail(string(said), 400))
}

func (e *Engine) purgeNetwork(ctx context.Context) error {
	if _, err := os.Stat(e.data); err != nil {
		return nil
	}
	db, err := state.Open(e.data, e.exec)
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := network.New(ctx, network.Options{DB: db, Instance: e.Instance()})
	if err != nil {
		return err
	}
	defer n.Close()
	return n.Purge(ctx)
}

func (e *Engine) purgeCgroups() error {
	for _, name := range []string{"/" + e.Instance(), shim.CgroupName(e.exec)} {
		if err := cgroup.New(name).Delete(); err != nil {
			return err
		}
	}
	return nil
}

// unmount takes away what is mounted below the engine's directory.
func (e *Engine) unmount() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], e.Dir+"/") {
			unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
	return nil
}

// Busybox returns a root file system of busybox with its applets, as a tar
// archive: what tests import as an image.
func Busybox() ([]byte, error) {
	const path = "/bin/busybox"
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("busybox-static is not installed: %w", err)
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin/", "etc/", "tmp/", "root/", "home/", "var/", "usr/", "usr/bin/", "proc/", "sys/", "dev/"} {
		mode := int64(0o755)
		if dir == "tmp/" {
			mode = 0o1777
		}
		w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: mode})
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nweb:x:33:34:web:/home:/bin/sh\n",
		"etc/group":  "root:x:0:\nwww:x:34:\nextra:x:50:web\nnobody:x:65534:\n",
	}
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(binary))})
	w.Write(binary)
	for _, name := range []string{"etc/passwd", "etc/group"} {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))})
		w.Write([]byte(files[name]))
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			w.WriteHeader(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeLink, Linkname: "bin/busybox", Mode: 0o755})
		}
	}
	err = w.Close()
	return b.Bytes(), err
}

// ImportBusybox makes the image busybox:latest.
func (e *Engine) ImportBusybox() error {
	archive, err := Busybox()
	if err != nil {
		return err
	}
	cmd := e.Command("gantry", "import", "--change", `CMD ["sh"]`, "-", "busybox")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot import busybox: %w: %s", err, out)
	}
	return nil
}
