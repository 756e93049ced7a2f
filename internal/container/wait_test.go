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
		m.sayFarewell(&Container{}, &Record{
			ID: fmt.Sprintf("id%d", i), State: State{ExitCode: i},
			HostConfig: &api.HostConfig{AutoRemove: true}, HasBeenStarted: true,
		})
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

// One that is removed between being found and being waited for has woken everybody
// it will.
func TestWaitForWhatIsJustRemoved(t *testing.T) {
	c := &Container{rec: Record{State: State{ExitCode: 3, Status: api.StateRemoving}}}
	c.wake(waitExit)
	c.wake(waitRemoved)
	for _, condition := range []api.WaitCondition{api.WaitConditionNotRunning, api.WaitConditionNextExit, api.WaitConditionRemoved} {
		select {
		case answer := <-c.wait(t.Context(), condition):
			if answer.StatusCode != 3 {
				t.Errorf("%s: got %+v", condition, answer)
			}
		default:
			t.Errorf("%s: it would be waited for without end", condition)
		}
	}
}
