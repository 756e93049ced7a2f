package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// exited is how a container ended, or why that cannot be told.
type exited struct {
	code int
	err  error
}

// waitConditionFirstExit is a condition of our own engine's, for a container that
// it creates and starts in one request: see internal/container/run.go.
const waitConditionFirstExit container.WaitCondition = "first-exit"

// waiting follows a container to its end. Engines may come and go meanwhile: a
// container, and the stream to it, outlive them.
type waiting struct {
	app       *app
	path      string
	condition container.WaitCondition
	ended     chan exited // gets one answer

	begun chan struct{} // see started
	alone chan struct{} // see onlyEngine
	once  sync.Once     // closes alone
}

// waitFor subscribes to the end of a container before it returns, so that a
// start that follows cannot be missed; with waitConditionFirstExit it returns when
// the start is over, with its error.
func (a *app) waitFor(ctx context.Context, id string, condition container.WaitCondition) (*waiting, error) {
	w := &waiting{
		app: a, path: "/containers/" + id + "/wait", condition: condition,
		ended: make(chan exited, 1), begun: make(chan struct{}), alone: make(chan struct{}),
	}
	ask := w.ask
	if condition == waitConditionFirstExit {
		ask = w.askOfStart
	}
	resp, err := ask(ctx)
	if err != nil {
		return nil, err
	}
	go func() {
		e, lost := readExit(resp)
		if lost != nil {
			e = w.askOthers(ctx, lost)
		}
		w.ended <- e.waitedFor()
	}()
	return w, nil
}

// started tells that the container runs, or has. It is called once.
func (w *waiting) started() { close(w.begun) }

// onlyEngine tells that nothing but an engine can tell of the container any more:
// from now on a missing engine is only waited for as long as one takes to start.
func (w *waiting) onlyEngine() { w.once.Do(func() { close(w.alone) }) }

// removed waits until a --rm container that an engine could not start is gone.
func (w *waiting) removed(failure error) {
	if refused := (*client.Error)(nil); failure == nil || errors.As(failure, &refused) {
		w.onlyEngine()
		<-w.ended
	}
}

func (w *waiting) ask(ctx context.Context) (*client.Response, error) {
	c, err := w.app.client()
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if w.condition != "" {
		q.Set("condition", string(w.condition))
	}
	return c.Do(ctx, &client.Request{Method: client.MethodPost, Path: w.path, Query: q})
}

// awaitStart returns when a container that is being started runs, or will not, or when
// there is no engine to ask.
func (a *app) awaitStart(ctx context.Context, id string) {
	w := &waiting{app: a, path: "/containers/" + id + "/wait", condition: waitConditionFirstExit}
	if resp, err := w.ask(ctx); err == nil {
		resp.Body.Close()
	}
}

// askOfStart is ask for a container that is being started. When its engine goes away
// the next one knows whether it was.
func (w *waiting) askOfStart(ctx context.Context) (resp *client.Response, err error) {
	asked := 0
	err = patiently(ctx, func() error {
		asked++
		resp, err = w.ask(ctx)
		return err
	})
	if asked > 1 && client.IsNotFound(err) {
		err = fmt.Errorf("error waiting for container: %w", errGone)
	}
	return resp, err
}

// readExit waits for the answer. It is lost when its engine goes away.
func readExit(resp *client.Response) (e exited, lost error) {
	defer resp.Body.Close()
	var r container.WaitResponse
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			return exited{125, fmt.Errorf("cannot read the engine's answer: %w", err)}, nil
		}
		return exited{}, err
	}
	return exitOf(&r), nil
}

func exitOf(r *container.WaitResponse) exited {
	if r.Error != nil && r.Error.Message != "" {
		return exited{125, errors.New(r.Error.Message)}
	}
	return exited{int(r.StatusCode), nil}
}

// waitedFor says of an error what was being done.
func (e exited) waitedFor() exited {
	if e.err != nil {
		e.err = fmt.Errorf("error waiting for container: %w", e.err)
	}
	return e
}

// askOthers asks the engines that come after the one that was lost.
func (w *waiting) askOthers(ctx context.Context, lost error) exited {
	if w.condition == container.WaitConditionNextExit {
		// That may be over by now; but a container that does not run has only
		// ended if it was started.
		w.condition = container.WaitConditionNotRunning
		select {
		case <-w.begun:
		case <-ctx.Done():
		}
	}
	alone := w.alone
	var over <-chan time.Time
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		select {
		case <-ctx.Done():
			return exited{125, context.Cause(ctx)}
		case <-alone:
			alone, over = nil, time.After(engineReturn)
		case <-over:
			return exited{125, lostEngine(lost)}
		case <-time.After(pause):
		}
		asked := time.Now()
		e, err := w.askAnother(ctx)
		if err == nil {
			return e
		}
		if lost = err; alone == nil && time.Since(asked) > engineReturn {
			over = time.After(engineReturn) // there was one for a while
		}
	}
}

var errGone = errors.New("the container was removed while no engine was there to say how it ended")

func (w *waiting) askAnother(ctx context.Context) (e exited, lost error) {
	resp, err := w.ask(ctx)
	switch {
	case err == nil:
		return readExit(resp)
	case client.IsLost(err):
		return exited{}, err
	case client.IsInvalid(err) && w.condition == waitConditionFirstExit:
		w.condition = container.WaitConditionNotRunning // it is an older engine
		return w.askAnother(ctx)
	case client.IsNotFound(err):
		err = errGone
	}
	return exited{125, err}, nil
}

// status turns the end of a container into the end of the command.
func (e exited) status() error {
	if e.err != nil {
		return &exitError{code: e.code, err: e.err}
	}
	if e.code != 0 {
		return &exitError{code: e.code}
	}
	return nil
}
