package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// item is a queued event. One that is kept as a record is read again when its
// turn comes: a long queue costs its keys.
type item struct {
	id   string
	body []byte // only of events that are not kept
}

// maxVolatile is how many events of pulls wait in memory; older ones give way.
const maxVolatile = 1000

// queue is the events one endpoint has not taken yet.
type queue struct {
	Endpoint
	records depot.Records
	log     *slog.Logger
	client  *http.Client

	mu       sync.Mutex // guards what follows
	items    []item
	volatile int
	count    Stats
	wake     chan struct{}
}

func openQueue(ctx context.Context, e Endpoint, records depot.Records, log *slog.Logger) (*queue, error) {
	q := &queue{
		Endpoint: e, records: records, log: log.With("webhook", e.Name),
		client: &http.Client{Timeout: e.Timeout, CheckRedirect: redirected},
		wake:   make(chan struct{}, 1),
	}
	keys, err := records.RecordKeys(ctx, q.key(""), "", -1)
	if err != nil {
		return nil, errs.System("cannot read the queue of webhook %s: %w", e.Name, err)
	}
	for _, key := range keys {
		q.items = append(q.items, item{id: strings.TrimPrefix(key, q.key(""))})
	}
	if len(keys) > 0 {
		q.log.Info("events of an earlier run are waiting", "count", len(keys))
		q.wake <- struct{}{}
	}
	return q, nil
}

func (q *queue) key(id string) string { return "notify/" + q.Name + "/" + id }

func (q *queue) wants(e serve.Event) bool {
	return slices.Contains(q.Events, e.Action) && (q.Blobs || !isBlob(e))
}

// push adds an event. The context of the request is not asked: that its client
// left does not undo what happened.
func (q *queue) push(id string, body []byte, volatile bool) error {
	it := item{id: id}
	if volatile {
		it.body = body
	} else if err := q.records.PutRecord(context.Background(), q.key(id), body); err != nil {
		return err
	}
	q.mu.Lock()
	q.items = append(q.items, it)
	if volatile {
		q.volatile++
		q.makeRoom()
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// makeRoom drops the oldest event of a pull when there are too many, sparing the
// first item, which may be under way. The caller holds mu.
func (q *queue) makeRoom() {
	if q.volatile <= maxVolatile {
		return
	}
	for i := 1; i < len(q.items); i++ {
		if q.items[i].body != nil {
			q.items = slices.Delete(q.items, i, i+1)
			q.volatile--
			q.count.Dropped++
			return
		}
	}
}

func (q *queue) stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.count
	s.Name, s.Pending = q.Name, len(q.items)
	return s
}

// work delivers one event after the other until the context ends.
func (q *queue) work(ctx context.Context) {
	for ctx.Err() == nil {
		q.mu.Lock()
		var next *item
		if len(q.items) > 0 {
			next = &item{q.items[0].id, q.items[0].body}
		}
		q.mu.Unlock()
		if next != nil {
			q.deliver(ctx, *next)
			continue
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
}

// deliver tries until the endpoint took the event, or it is too old.
func (q *queue) deliver(ctx context.Context, it item) {
	body := it.body
	for failures := 0; ; failures++ {
		err := error(nil)
		if body == nil {
			body, err = q.records.Record(ctx, q.key(it.id))
			if errors.Is(err, errdefs.ErrNotFound) {
				q.done(ctx, it, nil)
				return
			}
		}
		if err == nil {
			err = q.post(ctx, body)
		}
		if err == nil {
			q.done(ctx, it, func(s *Stats) { s.Delivered++ })
			return
		}
		if ctx.Err() != nil {
			return
		}
		if age := time.Since(queuedAt(it.id)); age > q.MaxAge {
			q.log.Error("an event is given up", "age", age.Round(time.Second), "error", err)
			q.done(ctx, it, func(s *Stats) { s.Failed++; s.Dropped++ })
			return
		}
		pause := q.pause(failures, err)
		if failures == 0 {
			q.log.Warn("an event was not taken and will be sent again", "error", err, "in", pause)
		}
		q.mu.Lock()
		q.count.Failed++
		q.mu.Unlock()
		if !wait(ctx, pause) {
			return
		}
	}
}

// done takes the first item from the queue.
func (q *queue) done(ctx context.Context, it item, count func(*Stats)) {
	if it.body == nil {
		if err := q.records.DeleteRecord(context.WithoutCancel(ctx), q.key(it.id)); err != nil {
			q.log.Error("an event that was delivered stays in the queue", "error", err)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = slices.Delete(q.items, 0, 1)
	if it.body != nil {
		q.volatile--
	}
	if count != nil {
		count(&q.count)
	}
}

func queuedAt(id string) time.Time {
	text, _, _ := strings.Cut(id, "-")
	nanos, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

// refusal is an answer that is no success.
type refusal struct {
	status string
	after  time.Duration
}

func (e *refusal) Error() string { return "the endpoint answered " + e.status }

// post makes one delivery. Every answer below 400 is success, but for one that
// says that the event should have gone elsewhere.
func (q *queue) post(ctx context.Context, body []byte) error {
	data, err := json.Marshal(envelope{[]json.RawMessage{body}})
	if err != nil {
		return fmt.Errorf("cannot encode the event: %w", err)
	}
	ctx, cancel := lingering(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.URL, bytes.NewReader(data))
	if err != nil {
		return err
	}
	for key, value := range q.Headers {
		req.Header.Set(key, value)
	}
	req.Header.Set("Content-Type", MediaType)
	resp, err := q.client.Do(req)
	if err != nil {
		// The URL may carry a secret; the error says what happened without it.
		var inURL *url.Error
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		return fmt.Errorf("cannot reach the endpoint: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	switch {
	case resp.StatusCode == http.StatusMovedPermanently, resp.StatusCode == http.StatusFound:
		return &refusal{status: resp.Status + ", which does not take the event along: give its new address"}
	case resp.StatusCode < 400:
		return nil
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // absent, or a date: our own pace
	return &refusal{resp.Status, time.Duration(seconds) * time.Second}
}

// redirected follows a redirect that takes the event along (307, 308), and only
// within the server the endpoint was given for: elsewhere neither the configured
// headers, in which there are secrets, are to go nor the event, and a receiver
// is not to choose which server of this network is asked.
func redirected(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	upgraded := first.Scheme == "http" && req.URL.Scheme == "https" && req.URL.Hostname() == first.Hostname()
	switch {
	case req.Method != http.MethodPost:
		return http.ErrUseLastResponse
	case len(via) >= 10:
		return errs.Unavailable("the endpoint redirects without end")
	case !upgraded && (req.URL.Host != first.Host || req.URL.Scheme != first.Scheme):
		return errs.Unavailable("the endpoint redirects to another server, %s, which is not followed", req.URL.Host)
	}
	return nil
}

// linger is how long a delivery under way may go on when the notifier is closed:
// cut off, it would be made a second time.
const linger = 2 * time.Second

func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(linger, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// pause doubles, with a quarter of chance in it, so that many registries do not
// come back to an endpoint at once.
func (q *queue) pause(failures int, err error) time.Duration {
	d := min(q.Backoff, q.MaxBackoff)
	for range min(failures, 20) {
		d = min(2*d, q.MaxBackoff)
	}
	d -= time.Duration(rand.Int64N(int64(d)/4 + 1))
	var refused *refusal
	if errors.As(err, &refused) {
		d = max(d, min(refused.after, q.MaxBackoff))
	}
	return d
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
