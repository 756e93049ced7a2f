// Package fault kills and starves the parts of a real engine under load: the
// daemon, the two roles of the shim, the disk, the clients. Containers must not
// notice, and nothing may be left behind.
//
// Every scenario is a loop: a few rounds in `go test`, and as many as GANTRY_SOAK
// says in script/soak.
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

func TestMain(m *testing.M) { os.Exit(enginetest.Each(m)) }

// rounds is how often a scenario is repeated.
func (f *fixture) rounds() int { f.Helper(); return f.times(1, 8) }

// times is so many times what GANTRY_SOAK says, or usually that. script/soak reads
// the number.
func (f *fixture) times(each, usually int) int {
	f.Helper()
	n := each * enginetest.Rounds(f.T, usually)
	f.Logf("%d rounds", n)
	return n
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
	return &fixture{T: t, Engine: enginetest.For(t, "", args...), worked: map[string]int{}}
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
