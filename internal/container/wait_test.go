package container

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
)

// A client that waits after it has started a container must learn the exit code
// of one that was faster, and has removed itself.
func TestWaitForWhatHasRemovedItself(t *testing.T) {
	m := &Manager{}
	for i := range maxFarewells + 1 {
		m.sayFarewell(&Record{ID: fmt.Sprintf("id%d", i), State: State{ExitCode: i}})
	}
	for _, condition := range []api.WaitCondition{"", api.WaitConditionNotRunning, api.WaitConditionRemoved} {
		answer, err := m.Wait(t.Context(), fmt.Sprintf("id%d", maxFarewells), condition)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-answer; got.StatusCode != maxFarewells || got.Error != nil {
			t.Errorf("got %+v", got)
		}
	}
	if _, err := m.Wait(t.Context(), "id0", ""); !errdefs.IsNotFound(err) {
		t.Errorf("the oldest is still known: %v", err)
	}
}
