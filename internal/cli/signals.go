package cli

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gantry-containers/gantry/internal/cli/catch"
	"github.com/gantry-containers/gantry/internal/cli/client"
)

// rareSignals is how long the signals people seldom send stay unproxied. Taking
// over a signal costs a round trip between threads, and there are over sixty:
// more than a container that ends at once is worth.
const rareSignals = 100 * time.Millisecond

// birthPatience is how long a signal waits for the container it may be meant for
// to be there. After that it does what it does to any command.
const birthPatience = 100 * time.Millisecond

// signalProxy sends the signals we get to a container. A nil one does nothing.
type signalProxy struct {
	app    *app
	giveUp func(error)
	ch     chan os.Signal
	born   chan born     // gets one value, when the container is there
	runs   chan struct{} // see begun
	once   sync.Once     // closes runs
	stop   context.CancelFunc
}

// born is a container that is there. Nobody may tell that it runs: then ask, when there
// is something to send, which is seldom.
type born struct {
	id  string
	ask bool
}

// proxySignals sends every signal we get to the container, until the returned
// function is called. When no engine is there to take them, giveUp is called for
// the second that is to end the command.
func (a *app) proxySignals(ctx context.Context, id string, giveUp func(error)) (stop func()) {
	p := a.catchSignals(ctx, giveUp)
	p.exists(id, false)
	p.begun()
	return p.stop
}

// catchSignals is proxySignals for a container that is being created and started:
// what comes before it runs is of no use to it, and waits.
func (a *app) catchSignals(ctx context.Context, giveUp func(error)) *signalProxy {
	p := &signalProxy{app: a, giveUp: giveUp, ch: make(chan os.Signal, 128), born: make(chan born, 1), runs: make(chan struct{})}
	catch.Notify(p.ch, commonSignals()...)
	ctx, p.stop = context.WithCancel(ctx)
	go p.run(ctx)
	return p
}

// exists tells that the container is there, and whether the engine is to be asked
// when it runs. It is called once.
func (p *signalProxy) exists(id string, ask bool) {
	if p != nil {
		p.born <- born{id, ask}
	}
}

// begun tells that the container runs, or has. It is called after exists.
func (p *signalProxy) begun() {
	if p != nil {
		p.once.Do(func() { close(p.runs) })
	}
}

func (p *signalProxy) end() {
	if p != nil {
		p.stop()
	}
}

func (p *signalProxy) run(ctx context.Context) {
	rare := time.NewTimer(rareSignals)
	defer rare.Stop()
	var b born
	var early []os.Signal
	var unborn <-chan time.Time
	runs := p.runs
	ask := func() {
		if b.ask && len(early) > 0 {
			go func() {
				p.app.awaitStart(ctx, b.id)
				p.begun()
			}()
		}
	}
	for {
		select {
		case <-ctx.Done():
			signal.Stop(p.ch)
			catch.Reset()
			return
		case <-rare.C:
			signal.Notify(p.ch)
		case b = <-p.born:
			unborn = nil
			ask()
		case <-unborn:
			signal.Reset()
			catch.Reset()
			raise(early[0])
			catch.Notify(p.ch, commonSignals()...) // it was not the end
			early, unborn = nil, nil
		case <-runs:
			if b.id == "" {
				b = <-p.born
			}
			for _, s := range early {
				p.send(ctx, b.id, s)
			}
			runs = nil
		case s := <-p.ch:
			switch {
			case signalName(s) == "":
			case b.id == "":
				if early = append(early, s); unborn == nil {
					unborn = time.After(birthPatience)
				}
			case runs != nil && len(early) == 0:
				early = append(early, s)
				ask()
			default: // runs, or somebody insists: there may be no engine any more
				p.send(ctx, b.id, s)
			}
		}
	}
}

func (p *signalProxy) send(ctx context.Context, id string, s os.Signal) {
	name := signalName(s)
	if client.IsLost(p.app.proxySignal(ctx, id, name)) {
		p.app.proxyLater(ctx, id, name, p.ch, p.giveUp)
	}
}

// proxySignal fails when the container is not running yet, or any more, and has
// no use for the signal, or when there is no engine.
func (a *app) proxySignal(ctx context.Context, id, name string) error {
	return a.json(ctx, &client.Request{
		Method: client.MethodPost,
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
