package cli

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// rareSignals is how long the signals people seldom send stay unproxied. Taking
// over a signal costs a round trip between threads, and there are over sixty:
// more than a container that ends at once is worth.
const rareSignals = 100 * time.Millisecond

// proxySignals sends every signal we get to the container, until the returned
// function is called. When no engine is there to take them, giveUp is called for
// the second that is to end the command.
func (a *app) proxySignals(ctx context.Context, id string, giveUp func(error)) (stop func()) {
	ch := make(chan os.Signal, 128)
	signal.Notify(ch, commonSignals()...)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		rare := time.NewTimer(rareSignals)
		defer rare.Stop()
		for {
			select {
			case <-ctx.Done():
				signal.Stop(ch)
				return
			case <-rare.C:
				signal.Notify(ch)
			case s := <-ch:
				if name := signalName(s); name != "" && client.IsLost(a.proxySignal(ctx, id, name)) {
					a.proxyLater(ctx, id, name, ch, giveUp)
				}
			}
		}
	}()
	return cancel
}

// proxySignal fails when the container is not running yet, or any more, and has
// no use for the signal, or when there is no engine.
func (a *app) proxySignal(ctx context.Context, id, name string) error {
	return a.json(ctx, &client.Request{
		Method: http.MethodPost,
		Path:   "/containers/" + id + "/kill",
		Query:  url.Values{"signal": {name}},
	}, nil)
}

// proxyLater sends a signal to the container as soon as there is an engine. A
// person who presses the keys again until then wants the command to end.
func (a *app) proxyLater(ctx context.Context, id, name string, more <-chan os.Signal, giveUp func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-more:
			if sig, ok := s.(syscall.Signal); ok && slices.Contains([]string{"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"}, signalName(s)) {
				giveUp(&exitError{code: 128 + int(sig), err: errors.New("there is no engine to pass the signal on; the container may still be running")})
				return
			}
		case <-time.After(longestPause):
			if !client.IsLost(a.proxySignal(ctx, id, name)) {
				return
			}
		}
	}
}
