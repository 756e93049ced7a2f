// Package clients drives a real engine with the client libraries that people
// use: Docker's for Go, of two generations, docker-py, dockerode, and tools
// built on them. It is a module of its own, so that Docker's clients stay out of
// ours.
package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Println("SKIP: an engine needs root")
		return 0
	}
	dir, err := os.MkdirTemp("", "gantry-clients-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Println("cannot build the engine:", err)
		return 1
	}
	return m.Run()
}

// build makes the programs where they are not given, in their own module.
func build(dir string) error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := os.Chdir("../.."); err != nil {
		return err
	}
	bin, err := enginetest.Programs(dir)
	return errors.Join(err, os.Setenv("GANTRY_BIN", bin), os.Chdir(here))
}

// fixture is one engine of a test, with the image busybox, and a client of the
// newest generation.
type fixture struct {
	*testing.T
	*enginetest.Engine
	*client.Client
}

func newFixture(t *testing.T, options ...client.Opt) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-clients")
	if err != nil {
		t.Fatal(err)
	}
	e, err := enginetest.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, Engine: e}
	t.Cleanup(f.close)
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.ImportBusybox(); err != nil {
		t.Fatal(err)
	}
	f.Client = f.connect(options...)
	return f
}

func (f *fixture) close() {
	if f.Failed() {
		f.Logf("gantryd logged:\n%s", f.Engine.Log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.Engine.Close(ctx); err != nil {
		f.Errorf("the engine did not leave the host clean: %v", err)
	}
}

func (f *fixture) connect(options ...client.Opt) *client.Client {
	f.Helper()
	c, err := client.New(append([]client.Opt{client.WithHost(f.Engine.Host())}, options...)...)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	return c
}

// must returns the value a call gave, or ends the test.
func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func same[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

// wantError looks for the class of an error and what it says.
func wantError(t testing.TB, err error, class func(error) bool, text string) {
	t.Helper()
	if err == nil || !class(err) || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want one of the class with %q", err, text)
	}
}

// create makes a container of busybox that is removed with the engine.
func (f *fixture) create(name string, c container.Config, h container.HostConfig) string {
	f.Helper()
	if c.Image == "" {
		c.Image = "busybox"
	}
	r, err := f.ContainerCreate(f.Context(), client.ContainerCreateOptions{Name: name, Config: &c, HostConfig: &h})
	return must(f.T, r.ID, err)
}

// started runs a command in a new container.
func (f *fixture) started(name string, command ...string) string {
	f.Helper()
	id := f.create(name, container.Config{Cmd: command}, container.HostConfig{})
	f.start(id)
	return id
}

func (f *fixture) start(id string) {
	f.Helper()
	if _, err := f.ContainerStart(f.Context(), id, client.ContainerStartOptions{}); err != nil {
		f.Fatal(err)
	}
}

// wait returns the exit code of a container, once the condition holds.
func (f *fixture) wait(id string, condition container.WaitCondition) int64 {
	f.Helper()
	w := f.ContainerWait(f.Context(), id, client.ContainerWaitOptions{Condition: condition})
	return f.result(w)
}

func (f *fixture) result(w client.ContainerWaitResult) int64 {
	f.Helper()
	select {
	case r := <-w.Result:
		if r.Error != nil {
			f.Fatal(r.Error.Message)
		}
		return r.StatusCode
	case err := <-w.Error:
		f.Fatal(err)
	}
	return -1
}

func (f *fixture) inspect(id string) container.InspectResponse {
	f.Helper()
	r, err := f.ContainerInspect(f.Context(), id, client.ContainerInspectOptions{})
	return must(f.T, r, err).Container
}
