package cli

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"time"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// rareSignals is how long the signals people seldom send stay unproxied. Taking
// over a signal costs a round trip between threads, and there are over sixty:
// more than a container that ends at once is worth.
const rareSignals = 100 * time.Millisecond

// proxySignals sends every signal we get to the container, until the returned
// function is called.
func (a *app) proxySignals(ctx context.Context, id string) (stop func()) {
	ch := make(chan os.Signal, 128)
	signal.Notify(ch, commonSignals()...)
	done := make(chan struct{})
	go func() {
		rare := time.NewTimer(rareSignals)
		defer rare.Stop()
		for {
			select {
			case <-done:
				signal.Stop(ch)
				return
			case <-rare.C:
				signal.Notify(ch)
			case s := <-ch:
				a.proxySignal(ctx, id, s)
			}
		}
	}()
	return func() { close(done) }
}

func (a *app) proxySignal(ctx context.Context, id string, s os.Signal) {
	name := signalName(s)
	if name == "" {
		return
	}
	// A container that is not running yet, or any more, has no use for it.
	_ = a.json(ctx, &client.Request{
		Method: http.MethodPost,
		Path:   "/containers/" + id + "/kill",
		Query:  url.Values{"signal": {name}},
	}, nil)
}
