package container

import (
	"context"

	api "github.com/moby/moby/api/types/container"
)

type waitFor int

const (
	waitExit    waitFor = iota // the end of the present or next run
	waitRemoved                // the end of the container
)

// waiter is someone who waits; its channel has room for the one answer.
type waiter struct {
	until waitFor
	ch    chan api.WaitResponse
}

// Wait returns a channel that gets one answer when the condition holds. When
// Wait returns, an exit from then on is not missed. The channel never gets an
// answer once the context has ended. For a container that has removed itself the
// answer is there for a while, by its whole ID.
func (m *Manager) Wait(ctx context.Context, ref string, condition api.WaitCondition) (<-chan api.WaitResponse, error) {
	c, err := m.lookup(ref)
	if err != nil {
		answer, failed, ok := m.farewell(ref, condition)
		if !ok {
			return nil, err
		}
		if failed != nil {
			return nil, failed
		}
		ch := make(chan api.WaitResponse, 1)
		ch <- answer
		return ch, nil
	}
	if condition == WaitConditionFirstExit {
		return m.waitFirst(ctx, c)
	}
	return c.wait(ctx, condition), nil
}

func (c *Container) wait(ctx context.Context, condition api.WaitCondition) <-chan api.WaitResponse {
	w := &waiter{until: waitExit, ch: make(chan api.WaitResponse, 1)}
	if condition == api.WaitConditionRemoved {
		w.until = waitRemoved
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := condition == WaitConditionFirstExit
	if first && c.rec.HostConfig.AutoRemove {
		w.until = waitRemoved
	}
	if first && w.until == waitExit && c.run.ended != nil {
		w.ch <- *c.run.ended
		return w.ch
	}
	notRunning := condition == "" || condition == api.WaitConditionNotRunning
	if c.gone || notRunning && !c.rec.running() && c.rec.State.Status != api.StateRestarting {
		w.ch <- c.rec.waitResponse()
		return w.ch
	}
	c.waiters = append(c.waiters, w)
	context.AfterFunc(ctx, func() { c.unwait(w) })
	return w.ch
}

func (c *Container) unwait(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.waiters {
		if c.waiters[i] == w {
			c.waiters = append(c.waiters[:i], c.waiters[i+1:]...)
			return
		}
	}
}

// wake answers those who wait for this.
func (c *Container) wake(what waitFor) {
	l, e := c.answer(what)
	l.say(e)
}

// answer is wake but for the client that has a line: it returns what that is to be
// told, now that no lock is held.
func (c *Container) answer(what waitFor) (l *line, e *Ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = c.gone || what == waitRemoved
	if what == waitExit && c.run != nil && c.starts > 0 && c.run.ended == nil {
		answer := c.rec.waitResponse()
		c.run.ended = &answer
	}
	kept := c.waiters[:0]
	for _, w := range c.waiters {
		if w.until == what {
			w.ch <- *c.answerTo(what)
		} else {
			kept = append(kept, w)
		}
	}
	clear(c.waiters[len(kept):])
	c.waiters = kept
	if c.run == nil || c.run.failed != nil || what == waitExit && c.rec.HostConfig.AutoRemove {
		return nil, nil // whose start failed is told that, see Run
	}
	return c.takeLineLocked(), &Ending{WaitResponse: c.answerTo(what)}
}

// answerTo is the answer to those who wait for this.
func (c *Container) answerTo(what waitFor) *api.WaitResponse {
	answer := c.rec.waitResponse()
	if what == waitRemoved {
		answer.Error = nil // the removal went well
	}
	return &answer
}

func (r *Record) waitResponse() api.WaitResponse {
	answer := api.WaitResponse{StatusCode: int64(r.State.ExitCode)}
	if r.State.Error != "" {
		answer.Error = &api.WaitExitError{Message: r.State.Error}
	}
	return answer
}
