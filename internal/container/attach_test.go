package container_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/enginetest"
	"github.com/gantry-containers/gantry/internal/image"
)

// newEngine is an engine in this process, with the image busybox.
func newEngine(t *testing.T, adjust ...func(c *engine.Config, bin string)) *engine.Engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	dir := t.TempDir()
	bin, err := enginetest.Programs(dir)
	if err != nil {
		t.Fatal(err)
	}
	data, exec := filepath.Join(dir, "data"), filepath.Join(dir, "exec")
	config := engine.Config{DataRoot: data, ExecRoot: exec, ShimPath: filepath.Join(bin, "gantry-shim")}
	for _, f := range adjust {
		f(&config, bin)
	}
	e, err := engine.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for _, id := range e.Containers.IDs() {
			if err := e.Containers.Remove(ctx, id, container.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
		if err := e.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := enginetest.At(data, exec).Purge(ctx); err != nil {
			t.Error(err)
		}
	})
	archive, err := enginetest.Busybox()
	if err != nil {
		t.Skip(err)
	}
	if _, err := e.Images.Import(t.Context(), bytes.NewReader(archive), image.ImportOptions{Repo: "busybox", Tag: "latest"}); err != nil {
		t.Fatal(err)
	}
	return e
}

func create(t *testing.T, m *container.Manager, argv ...string) string {
	t.Helper()
	r, err := m.Create(t.Context(), &container.CreateOptions{
		Config:     &api.Config{Image: "busybox", Cmd: argv, Tty: true},
		HostConfig: &api.HostConfig{NetworkMode: "none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// attach attaches to a container and returns what the client reads to its end.
// told is called when the client has been told that it is attached, which it is
// not yet.
func attach(t *testing.T, m *container.Manager, id string, told func()) string {
	t.Helper()
	return attachThen(t, m, id, told, func() {})
}

// attachThen is attach, with a call when the client is attached.
func attachThen(t *testing.T, m *container.Manager, id string, told, attached func()) string {
	t.Helper()
	ends := socketPair(t)
	client := ends[0]
	defer client.Close()
	err := m.Attach(t.Context(), id, container.AttachOptions{Stream: true, Stdout: true}, func(bool) (net.Conn, []byte, error) {
		told()
		return ends[1], nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	attached()
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	out, err := io.ReadAll(client)
	if err != nil {
		t.Fatalf("the client read %q and then nothing: %v", out, err)
	}
	return string(out)
}

// A client asks for the start as soon as it is told that it is attached. When the
// container was quicker than the client's way to the shim the client waited for
// ever, having seen nothing.
func TestStartDoesNotOvertakeAttach(t *testing.T) {
	m := newEngine(t).Containers
	id := create(t, m, "echo", "hello")
	started := make(chan error, 1)
	out := attach(t, m, id, func() {
		ended, err := m.Wait(t.Context(), id, api.WaitConditionNextExit)
		if err != nil {
			t.Fatal(err)
		}
		go func() { started <- m.Start(t.Context(), id) }()
		// It waits, as it should, or the container runs to its end without it.
		for !m.StartWaits(id) {
			select {
			case <-ended:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	if err := <-started; err != nil {
		t.Error(err)
	}
	if out != "hello\r\n" {
		t.Errorf("the client saw %q", out)
	}
}

// A client that attaches while a start is under way must be with the shim before
// the process is: kept for the next start it missed what the process said first,
// and waited for ever for one that was quick to end.
func TestAttachDuringStart(t *testing.T) {
	slow := filepath.Join(t.TempDir(), "slow-runtime")
	for _, fifo := range []string{slow + ".began", slow + ".goes"} {
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := newEngine(t, func(c *engine.Config, bin string) {
		script := "#!/bin/sh\ncase \"$*\" in *create*) echo > " + slow + ".began; read go < " + slow + ".goes;; esac\nexec " + bin + "/gantry-oci \"$@\"\n"
		if err := os.WriteFile(slow, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		c.Runtimes, c.DefaultRuntime = map[string]engine.Runtime{"slow": {Path: slow}}, "slow"
	})
	m := e.Containers
	id := create(t, m, "echo", "hello")
	started := make(chan error, 1)
	go func() { started <- m.Start(t.Context(), id) }()
	if _, err := os.ReadFile(slow + ".began"); err != nil {
		t.Fatal(err)
	}
	attached, kept := make(chan struct{}), make(chan bool, 1)
	go func() {
		defer os.WriteFile(slow+".goes", []byte("\n"), 0) // the start goes on
		for {
			select {
			case <-attached:
				kept <- false
				return
			default:
			}
			if m.Keeps(id) {
				kept <- true
				return
			}
			runtime.Gosched()
		}
	}()
	out := attachThen(t, m, id, func() {}, func() { close(attached) })
	if err := <-started; err != nil {
		t.Error(err)
	}
	if <-kept {
		t.Error("the client was kept for the next start")
	}
	if out != "hello\r\n" {
		t.Errorf("the client saw %q", out)
	}
}

// A container may end while a client is on its way to it.
func TestAttachToWhatEnds(t *testing.T) {
	m := newEngine(t).Containers
	id := create(t, m, "sleep", "1000")
	if err := m.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	attach(t, m, id, func() {
		ended, err := m.Wait(t.Context(), id, api.WaitConditionNotRunning)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Kill(t.Context(), id, "KILL"); err != nil {
			t.Fatal(err)
		}
		<-ended
	})
}

// socketPair is a connection: the client's end and the engine's.
func socketPair(t *testing.T) (ends [2]net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return ends
}
