// Package notify tells other programs what happens in a registry: webhooks in
// the envelope of the Docker registry's notifications
// (application/vnd.docker.distribution.events.v1+json).
//
// It owns the queues. An event that is queued survives a restart, as a record of
// the depot, until its endpoint took it or it grew too old; only those of pulls,
// which are many and say little, are kept in memory alone. Each endpoint has a
// queue and a worker of its own, so that one that is down keeps no other
// waiting. It knows nothing of what the events mean.
package notify

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// Endpoint is a receiver of events.
type Endpoint struct {
	// Name tells its queue from others: of letters, digits, dots and dashes.
	// Under the same name a queue goes on after a restart.
	Name string
	URL  string // http or https
	// Headers are sent with each event, for example an Authorization.
	Headers map[string]string
	// Timeout of one delivery; 0 means 10 s.
	Timeout time.Duration
	// Backoff is the wait after a first failure, doubled for each further
	// one up to MaxBackoff; 0 means 1 s and 5 minutes.
	Backoff, MaxBackoff time.Duration
	// MaxAge is how long an event is tried; 0 means 3 days.
	MaxAge time.Duration
	// Events are the actions told of; none means push and delete.
	Events []serve.EventAction
	// Blobs has the events of blobs sent too, not only those of manifests.
	Blobs bool
}

// Options configures a Notifier.
type Options struct {
	Endpoints []Endpoint
	Records   depot.Records // where queues are kept
	Source    string        // address of this registry, in the events
	Log       *slog.Logger
}

// Stats are figures of one endpoint since the start.
type Stats struct {
	Name                       string
	Pending                    int    // events in the queue now
	Delivered, Failed, Dropped uint64 // Failed counts attempts, Dropped events given up
}

// Notifier queues events and delivers them until it is closed.
type Notifier struct {
	opts     Options
	log      *slog.Logger
	instance string
	sequence atomic.Uint64
	queues   []*queue
	cancel   context.CancelFunc
	workers  sync.WaitGroup
}

// New starts a worker for each endpoint, which begins with what an earlier
// process left in the queue.
func New(ctx context.Context, o Options) (*Notifier, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Source == "" {
		o.Source, _ = os.Hostname() // "" is an address nobody knows either
	}
	n := &Notifier{opts: o, log: o.Log, instance: rand.Text()}
	if err := Check(o.Endpoints); err != nil {
		return nil, err
	}
	for _, e := range o.Endpoints {
		e.fill()
		q, err := openQueue(ctx, e, o.Records, o.Log)
		if err != nil {
			return nil, err
		}
		n.queues = append(n.queues, q)
	}
	ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, q := range n.queues {
		n.workers.Go(func() { q.work(ctx) })
	}
	return n, nil
}

// Check fails with errdefs.ErrInvalidArgument when New could not take the
// endpoints.
func Check(endpoints []Endpoint) error {
	for i, e := range endpoints {
		if err := e.check(); err != nil {
			return err
		}
		if slices.ContainsFunc(endpoints[:i], func(other Endpoint) bool { return other.Name == e.Name }) {
			return errs.InvalidArgument("two webhooks are called %s", e.Name)
		}
	}
	return nil
}

func (e *Endpoint) check() error {
	for _, r := range e.Name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_') {
			return errs.InvalidArgument("webhook %q: a name is of letters, digits, dots, dashes and underscores", e.Name)
		}
	}
	u, err := url.Parse(e.URL)
	switch {
	case e.Name == "":
		return errs.InvalidArgument("a webhook needs a name")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errs.InvalidArgument("webhook %s: %q is no http or https URL", e.Name, e.URL)
	}
	for _, action := range e.Events {
		switch action {
		case serve.EventPush, serve.EventPull, serve.EventDelete, serve.EventMount:
		default:
			return errs.InvalidArgument("webhook %s: no such event: %s", e.Name, action)
		}
	}
	return nil
}

// longest is the longest pause between two attempts.
const longest = 365 * 24 * time.Hour

// fill gives defaults to what was not said.
func (e *Endpoint) fill() {
	for value, fallback := range map[*time.Duration]time.Duration{
		&e.Timeout: 10 * time.Second, &e.Backoff: time.Second, &e.MaxBackoff: 5 * time.Minute, &e.MaxAge: 72 * time.Hour,
	} {
		if *value <= 0 {
			*value = fallback
		}
	}
	e.MaxBackoff = min(e.MaxBackoff, longest)
	if len(e.Events) == 0 {
		e.Events = []serve.EventAction{serve.EventPush, serve.EventDelete}
	}
}

// Notify queues an event with every endpoint that wants it. It returns when the
// event would survive a crash.
func (n *Notifier) Notify(e serve.Event) {
	var body []byte
	for _, q := range n.queues {
		if !q.wants(e) {
			continue
		}
		if body == nil {
			var err error
			if body, err = json.Marshal(n.record(e)); err != nil {
				n.log.Error("an event could not be encoded", "error", err)
				return
			}
		}
		// Nanoseconds order what different processes queued, the sequence
		// what happened within one.
		id := fmt.Sprintf("%020d-%06d", e.Time.UnixNano(), n.sequence.Add(1)%1e6)
		if err := q.push(id, body, e.Action == serve.EventPull); err != nil {
			n.log.Error("an event was not queued", "webhook", q.Name, "repository", e.Repository, "error", err)
		}
	}
}

// Stats tells of every endpoint.
func (n *Notifier) Stats() []Stats {
	var all []Stats
	for _, q := range n.queues {
		all = append(all, q.stats())
	}
	return all
}

// Close stops delivering. What is queued waits for the next New.
func (n *Notifier) Close() {
	n.cancel()
	n.workers.Wait()
}
