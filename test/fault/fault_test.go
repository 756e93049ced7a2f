// Package fault kills and starves the parts of a real engine under load: the
// daemon, the two roles of the shim, the disk, the clients. Containers must not
// notice, and nothing may be left behind.
//
// Every scenario is a loop: a few rounds in `go test`, 50 and more with
// GANTRY_SOAK=1 (script/soak).
package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
	"github.com/gantry-containers/gantry/internal/shim"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Println("SKIP: these tests start containers and need root")
		return 0
	}
	dir, err := os.MkdirTemp("", "gantry-fault-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		var bin string
		if bin, err = enginetest.Programs(dir); err == nil {
			os.Setenv("GANTRY_BIN", bin)
		}
	}
	if err != nil {
		fmt.Println("cannot build the engine:", err)
		return 1
	}
	return m.Run()
}

// rounds is how often a scenario is repeated.
func rounds() int {
	if os.Getenv("GANTRY_SOAK") != "" {
		return 60
	}
	return 8
}

// patience is how long anything that must happen may take on a busy machine.
const patience = 20 * time.Second

// fixture is one engine of a test.
type fixture struct {
	*testing.T
	*enginetest.Engine
	before census
	worked map[string]int // how often each deed of the chaos did
	cuts   bool           // attached clients may be cut off, as by the end of io
}

// newFixture starts an engine with the image busybox. At the end of the test it
// looks that nothing is left of any container, and takes the engine away.
func newFixture(t *testing.T, args ...string) *fixture {
	t.Helper()
	f := prepareFixture(t, args...)
	f.begin()
	return f
}

// prepareFixture makes an engine that is not started yet.
func prepareFixture(t *testing.T, args ...string) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-fault")
	if err != nil {
		t.Fatal(err)
	}
	e, err := enginetest.New(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, Engine: e, worked: map[string]int{}}
	t.Cleanup(f.close)
	return f
}

func (f *fixture) begin() {
	f.Helper()
	f.start()
	if err := f.ImportBusybox(); err != nil {
		f.Fatal(err)
	}
	f.ok("run", "--rm", "busybox", "true") // the pools are filled from now on
	f.before = f.census()
}

func (f *fixture) close() {
	if f.Failed() {
		f.Logf("gantryd logged:\n%s", tail(f.Engine.Log(), 60))
		b, _ := os.ReadFile(f.ExecRoot() + "/shim.log")
		f.Logf("gantry-shim logged:\n%s", tail(string(b), 60))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if f.Pid() == 0 {
		f.Engine.Start(ctx)
	}
	if err := f.Close(ctx); err != nil {
		f.Errorf("the engine did not leave the host clean: %v", err)
	}
}

func tail(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (f *fixture) start() {
	f.Helper()
	if err := f.Engine.Start(context.Background()); err != nil {
		f.Fatal(err)
	}
}

// try runs a gantry command, which must not hang whatever happens.
func (f *fixture) try(args ...string) (string, error) {
	f.Helper()
	type result struct {
		out string
		err error
	}
	cmd := f.Command("gantry", args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(patience+10*time.Second, func() {
		f.Errorf("gantry %s hangs", strings.Join(args, " "))
		cmd.Process.Kill()
	})
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("gantry %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// ok runs a gantry command that must work.
func (f *fixture) ok(args ...string) string {
	f.Helper()
	out, err := f.try(args...)
	if err != nil {
		f.Fatal(err)
	}
	return out
}

// eventually waits until look is content, which returns "" then and otherwise
// what is wrong.
func (f *fixture) eventually(look func() string) {
	f.Helper()
	deadline := time.Now().Add(patience)
	for {
		wrong := look()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("after %v: %s", patience, wrong)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ask asks the shim, and asks again while there is none.
func (f *fixture) ask(question func(context.Context, *shim.Client) error) {
	f.Helper()
	f.eventually(func() string {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, err := f.Shim(ctx)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		if err := question(ctx, c); err != nil {
			return err.Error()
		}
		return ""
	})
}

// shimInfo asks the shim about itself.
func (f *fixture) shimInfo() (info shim.Info) {
	f.Helper()
	f.ask(func(ctx context.Context, c *shim.Client) (err error) {
		info, err = c.Info(ctx)
		return err
	})
	return info
}

// held is what the shim holds.
func (f *fixture) held() (list []shim.Status) {
	f.Helper()
	f.ask(func(ctx context.Context, c *shim.Client) (err error) {
		list, err = c.List(ctx)
		return err
	})
	return list
}

// moment is a random time within a round.
func moment(most time.Duration) time.Duration { return rand.N(most) }
