package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// engineReturn is how long an engine that went away is waited for when nothing
// else tells of a container: an upgrade, or the recovery from a crash, takes a
// moment. Tests are less patient.
var engineReturn = 15 * time.Second

// The pauses between two questions while there is no engine.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = 200 * time.Millisecond
)

// patiently asks, and asks again while no engine answers.
func patiently(ctx context.Context, ask func() error) error {
	over := time.After(engineReturn)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := ask()
		if !client.IsLost(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
			return lostEngine(err)
		case <-time.After(pause):
		}
	}
}

// lostEngine puts into words that an engine did not come back.
func lostEngine(err error) error {
	why := ""
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		why = fmt.Sprintf(" (%v)", err)
	}
	return &exitError{code: 125, err: fmt.Errorf("the engine is gone and none came back within %v%s; the container may still be running", engineReturn, why)}
}
