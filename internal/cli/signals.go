package cli

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/signal"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// proxySignals sends every signal we get to the container, until the returned
// function is called.
func (a *app) proxySignals(ctx context.Context, id string) (stop func()) {
	ch := make(chan os.Signal, 128)
	signal.Notify(ch)
	go func() {
		for s := range ch {
			name := signalName(s)
			if name == "" {
				continue
			}
			// A container that is not running yet, or any more, has no use for it.
			_ = a.json(ctx, &client.Request{
				Method: http.MethodPost,
				Path:   "/containers/" + id + "/kill",
				Query:  url.Values{"signal": {name}},
			}, nil)
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}
