package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

type statsFlags struct {
	all, noStream, noTrunc bool
	format                 string
}

func (a *app) statsCommand() *cobra.Command {
	var f statsFlags
	cmd := &cobra.Command{
		Use:               "stats [OPTIONS] [CONTAINER...]",
		Short:             "Display a live stream of container(s) resource usage statistics",
		RunE:              func(cmd *cobra.Command, args []string) error { return a.stats(cmd.Context(), &f, args) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&f.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "Do not truncate output")
	fs.StringVar(&f.format, "format", "", format.Help)
	return cmd
}

// board collects the latest sample of each container.
type board struct {
	mu   sync.Mutex // guards rows and the samples in them
	rows []*sample
}

// sample is what the stream of one container said last.
type sample struct {
	container string // as it was asked for
	stats     *container.StatsResponse
	err       error
	first     chan struct{} // closed when stats or err are set
	once      sync.Once
	cancel    context.CancelFunc
}

func (a *app) stats(ctx context.Context, f *statsFlags, names []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &board{}
	watched := len(names) == 0
	if watched {
		if err := a.watch(ctx, f, b); err != nil {
			return err
		}
	}
	for _, name := range names {
		a.follow(ctx, f, b, name)
	}
	if err := b.awaitFirst(); err != nil && !watched {
		return err
	}
	if f.format == "" {
		f.format = a.config().StatsFormat
	}
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		if err := a.showStats(f, b); err != nil || f.noStream || !watched && b.ended() {
			return err
		}
		<-tick.C
	}
}

// watch follows the containers there are and, while it streams, those that
// start later.
func (a *app) watch(ctx context.Context, f *statsFlags, b *board) error {
	if !f.noStream {
		if err := a.watchEvents(ctx, f, b); err != nil {
			return err
		}
	}
	q := url.Values{}
	if f.all {
		q.Set("all", "1")
	}
	var list []container.Summary
	if err := a.json(ctx, &client.Request{Method: client.MethodGet, Path: "/containers/json", Query: q}, &list); err != nil {
		return err
	}
	for _, c := range list {
		a.follow(ctx, f, b, format.ShortID(c.ID))
	}
	return nil
}

func (a *app) watchEvents(ctx context.Context, f *statsFlags, b *board) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var only filters
	only.add("type", "container")
	resp, err := c.Do(ctx, &client.Request{Method: client.MethodGet, Path: "/events", Query: only.query(url.Values{})})
	if err != nil {
		return err
	}
	go func() {
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var e events.Message
			if dec.Decode(&e) != nil {
				return
			}
			id := format.ShortID(e.Actor.ID)
			switch {
			case e.Action == events.ActionStart, e.Action == events.ActionCreate && f.all:
				a.follow(ctx, f, b, id)
			case e.Action == events.ActionDie && !f.all, e.Action == events.ActionDestroy:
				b.remove(id)
			}
		}
	}()
	return nil
}

// follow starts reading the stream of one container, once.
func (a *app) follow(ctx context.Context, f *statsFlags, b *board, name string) {
	ctx, cancel := context.WithCancel(ctx)
	s := &sample{container: name, first: make(chan struct{}), cancel: cancel}
	if !b.insert(s) {
		cancel()
		return
	}
	go func() {
		err := a.readStats(ctx, f, b, s)
		b.update(s, nil, err)
	}()
}

func (a *app) readStats(ctx context.Context, f *statsFlags, b *board, s *sample) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{"stream": {"1"}}
	if f.noStream {
		q.Set("stream", "0")
	}
	resp, err := c.Do(ctx, &client.Request{Method: client.MethodGet, Path: containerPath(s.container, "stats"), Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var r container.StatsResponse
		if err := dec.Decode(&r); err != nil {
			return err
		}
		b.update(s, &r, nil)
		if f.noStream {
			return nil
		}
	}
}

// insert adds a container that is not on the board, or whose stream has ended.
func (b *board) insert(s *sample) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, old := range b.rows {
		if old.container == s.container {
			if old.err == nil {
				return false
			}
			b.rows[i] = s
			return true
		}
	}
	b.rows = append(b.rows, s)
	return true
}

func (b *board) update(s *sample, r *container.StatsResponse, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r != nil {
		s.stats = r
	}
	s.err = err
	s.once.Do(func() { close(s.first) })
}

func (b *board) remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.rows[:0]
	for _, s := range b.rows {
		if s.container == id {
			s.cancel()
			continue
		}
		kept = append(kept, s)
	}
	b.rows = kept
}

func (b *board) snapshot() []*statsRow {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]*statsRow, 0, len(b.rows))
	for _, s := range b.rows {
		rows = append(rows, &statsRow{container: s.container, s: s.stats})
	}
	return rows
}

// awaitFirst waits until every container has answered once, or for five seconds:
// one that hangs must not keep the others from being shown.
func (b *board) awaitFirst() error {
	b.mu.Lock()
	rows := append([]*sample(nil), b.rows...)
	b.mu.Unlock()
	timeout := time.NewTimer(5 * time.Second)
	defer timeout.Stop()
	var errs []error
	for _, s := range rows {
		select {
		case <-s.first:
		case <-timeout.C:
			return errors.Join(errs...)
		}
		b.mu.Lock()
		if s.err != nil && s.stats == nil {
			errs = append(errs, s.err)
		}
		b.mu.Unlock()
	}
	return errors.Join(errs...)
}

// ended says that no stream is open any more.
func (b *board) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.rows {
		if s.err == nil {
			return false
		}
	}
	return true
}

func (a *app) showStats(f *statsFlags, b *board) error {
	text := f.format
	if text == "" || text == "table" {
		text = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
	}
	rows := b.snapshot()
	for _, r := range rows {
		r.trunc = !f.noTrunc
	}
	var out bytes.Buffer
	if err := format.Rows(&out, text, statsHeader(), rows); err != nil {
		return err
	}
	screen := out.String()
	if !f.noStream && isTerminal(a.out) {
		// Draw over the last picture, without the flicker of clearing it first.
		screen = "\x1b[H" + strings.ReplaceAll(screen, "\n", " \x1b[K\n") + "\x1b[J"
	}
	_, err := fmt.Fprint(a.out, screen)
	return err
}
