package container

import (
	"context"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
)

// Inspecting an exec while others end must not stop the engine: the two locks
// it takes are those the end of an exec takes too.
func TestExecInspectWhileOthersEnd(t *testing.T) {
	m := &Manager{execs: map[string]*execution{}}
	c := &Container{rec: Record{ID: "c"}, execs: map[string]*execution{}}
	code := 0
	e := &execution{id: "e", container: c, request: api.ExecCreateRequest{Cmd: []string{"true"}}, exitCode: &code}
	m.execs["e"], c.execs["e"] = e, e
	done := make(chan struct{})
	go func() {
		defer close(done)
		var both sync.WaitGroup
		both.Go(func() {
			for range 20000 {
				m.pruneExecs(c)
				c.endExecs()
			}
		})
		both.Go(func() {
			for range 20000 {
				if r, err := m.ExecInspect(context.Background(), "e"); err != nil || r.ContainerID != "c" {
					t.Errorf("%+v, %v", r, err)
					return
				}
			}
		})
		both.Wait()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("deadlock")
	}
}
