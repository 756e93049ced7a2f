// Package catalog is what people want to know of a registry's repositories
// besides their content: what they are about, who pushed what and when, how many
// like them; and it finds them.
//
// It owns an index in memory, the records of the depot it is made from, and the
// JSON API under /api/v1, with the search of `docker search` under /v1. What it
// knows it learns from the events of serve and from the depot. It knows no page:
// those are webui's, which asks here as any other client does.
//
// # Describing a repository
//
// The description of a repository, one line, is the annotation (or label of the
// configuration) org.opencontainers.image.description of what was pushed last
// with one. Its README, in Markdown, is the first of
//
//   - the last artifact pushed with the artifact type
//     application/vnd.gantry.readme.v1 and a layer of the media type
//     text/markdown, with any image of the repository as its subject,
//   - the annotation io.gantry.readme of the tag latest, or without that tag of
//     what was pushed last: of the index, or of the manifest.
package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// What a README is uploaded as.
const (
	ReadmeArtifactType = "application/vnd.gantry.readme.v1"
	ReadmeMediaType    = "text/markdown"
	ReadmeAnnotation   = "io.gantry.readme"
)

const (
	keptPushes     = 50               // of each repository
	maxDescription = 500              // bytes of it that are kept
	flushEvery     = 30 * time.Second // counts of pulls are written
	compareEvery   = 10 * time.Minute // the index is compared with the depot
)

// Push is one push of a tag.
type Push struct {
	Tag    string    `json:"tag"`
	Digest string    `json:"digest"`
	User   string    `json:"user,omitempty"`
	Time   time.Time `json:"time"`
}

// entry is a repository in the index, and its record.
type entry struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Readme      string    `json:"readme,omitempty"` // digest of the artifact's manifest
	Updated     time.Time `json:"updated"`
	Pulls       int64     `json:"pulls,omitempty"`
	Pushes      []Push    `json:"pushes,omitempty"` // the newest first

	stars map[string]bool // by who gave them
	dirty bool            // pulls were counted since the record was written
}

// Catalog is the catalogue of one depot.
type Catalog struct {
	depot depot.Depot
	log   *slog.Logger

	mu      sync.Mutex // guards what follows
	entries map[string]*entry
	events  []serve.Event
	wake    chan struct{}

	cancel context.CancelFunc
	done   chan struct{}
}

// Open reads the records. Repositories without one are looked at afterwards.
func Open(ctx context.Context, d depot.Depot, log *slog.Logger) (*Catalog, error) {
	c := &Catalog{depot: d, log: log, entries: map[string]*entry{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go c.work(ctx)
	return c, nil
}

// Close writes what is not written yet.
func (c *Catalog) Close() {
	c.cancel()
	<-c.done
}

const (
	entryPrefix = "catalog/repository/"
	starPrefix  = "catalog/star/"
)

// word is the name of a repository as one word of a key.
func word(name string) string { return strings.ReplaceAll(name, "/", "=") }

func nameOf(word string) string { return strings.ReplaceAll(word, "=", "/") }

func (c *Catalog) load(ctx context.Context) error {
	keys, err := c.depot.RecordKeys(ctx, entryPrefix, "", -1)
	if err != nil {
		return errs.System("cannot read the catalogue: %w", err)
	}
	for _, key := range keys {
		data, err := c.depot.Record(ctx, key)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return errs.System("cannot read the catalogue: %w", err)
		}
		e := &entry{}
		name := nameOf(strings.TrimPrefix(key, entryPrefix))
		if json.Unmarshal(data, e) != nil || e.Name != name {
			c.log.Warn("a damaged entry of the catalogue is made anew", "repository", name)
			continue
		}
		c.entries[name] = e
	}
	stars, err := c.depot.RecordKeys(ctx, starPrefix, "", -1)
	if err != nil {
		return errs.System("cannot read the catalogue: %w", err)
	}
	for _, key := range stars {
		if repository, who, ok := strings.Cut(strings.TrimPrefix(key, starPrefix), "/"); ok {
			c.entry(nameOf(repository)).star(who)
		}
	}
	return nil
}

// entry finds or makes one. The caller holds mu, or is alone.
func (c *Catalog) entry(name string) *entry {
	e := c.entries[name]
	if e == nil {
		e = &entry{Name: name}
		c.entries[name] = e
	}
	return e
}

func (e *entry) star(who string) {
	if e.stars == nil {
		e.stars = map[string]bool{}
	}
	e.stars[who] = true
}

// Notify takes a note of an event, for the worker.
func (c *Catalog) Notify(e serve.Event) {
	if e.Descriptor.MediaType == "application/octet-stream" {
		return // blobs say nothing to people
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Action == serve.EventPull {
		if entry := c.entries[e.Repository]; entry != nil {
			entry.Pulls++
			entry.dirty = true
		}
		return
	}
	c.events = append(c.events, e)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Catalog) work(ctx context.Context) {
	defer close(c.done)
	flush, compare := time.NewTicker(flushEvery), time.NewTicker(compareEvery)
	defer flush.Stop()
	defer compare.Stop()
	c.Compare(ctx)
	for {
		select {
		case <-c.wake:
			c.digest(ctx)
		case <-flush.C:
			c.flush(ctx)
		case <-compare.C:
			c.Compare(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			c.digest(last)
			c.flush(last)
			return
		}
	}
}

// digest works the noted events off.
func (c *Catalog) digest(ctx context.Context) {
	c.mu.Lock()
	events := c.events
	c.events = nil
	c.mu.Unlock()
	for _, e := range events {
		switch e.Action {
		case serve.EventPush:
			c.pushed(ctx, e)
		case serve.EventDelete:
			c.deleted(ctx, e.Repository)
		}
	}
}

func (c *Catalog) pushed(ctx context.Context, e serve.Event) {
	about := c.describe(ctx, e.Repository, e.Descriptor.Digest.String())
	c.mu.Lock()
	entry := c.entry(e.Repository)
	if about.readme {
		entry.Readme = e.Descriptor.Digest.String()
	}
	if about.description != "" {
		entry.Description = about.description
	}
	if e.Tag != "" {
		push := Push{Tag: e.Tag, Digest: e.Descriptor.Digest.String(), User: e.User, Time: e.Time.UTC()}
		entry.Pushes = slices.Insert(entry.Pushes, 0, push)
		entry.Pushes = entry.Pushes[:min(len(entry.Pushes), keptPushes)]
	}
	entry.Updated = e.Time.UTC()
	c.mu.Unlock()
	c.save(ctx, e.Repository)
}

// deleted forgets a repository with which its last content went.
func (c *Catalog) deleted(ctx context.Context, name string) {
	tags, err := c.depot.Tags(ctx, name, "", 1)
	if err != nil || len(tags) > 0 {
		return
	}
	manifests, err := c.depot.Manifests(ctx, name, "", 1)
	if err == nil && len(manifests) == 0 {
		c.forget(ctx, name)
	}
}

func (c *Catalog) forget(ctx context.Context, name string) {
	c.mu.Lock()
	e := c.entries[name]
	delete(c.entries, name)
	c.mu.Unlock()
	if e == nil {
		return
	}
	keys := []string{entryPrefix + word(name)}
	for who := range e.stars {
		keys = append(keys, starPrefix+word(name)+"/"+who)
	}
	for _, key := range keys {
		if err := c.depot.DeleteRecord(ctx, key); err != nil {
			c.log.Warn("an entry of the catalogue stays behind", "repository", name, "error", err)
		}
	}
}

// save writes the record of a repository.
func (c *Catalog) save(ctx context.Context, name string) {
	c.mu.Lock()
	e := c.entries[name]
	if e == nil {
		c.mu.Unlock()
		return
	}
	data, err := json.Marshal(e)
	e.dirty = false
	c.mu.Unlock()
	if err == nil {
		err = c.depot.PutRecord(ctx, entryPrefix+word(name), data)
	}
	if err != nil {
		c.log.Warn("the catalogue was not written", "repository", name, "error", err)
		c.mu.Lock()
		e.dirty = true // tried again with the next flush
		c.mu.Unlock()
	}
}

func (c *Catalog) flush(ctx context.Context) {
	c.mu.Lock()
	var dirty []string
	for name, e := range c.entries {
		if e.dirty {
			dirty = append(dirty, name)
		}
	}
	c.mu.Unlock()
	for _, name := range dirty {
		c.save(ctx, name)
	}
}

// Compare takes in repositories nobody told us of, and forgets those that a
// collection of garbage has removed.
func (c *Catalog) Compare(ctx context.Context) {
	names, err := c.depot.Repositories(ctx, "", -1)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("the catalogue cannot be compared with the storage", "error", err)
		}
		return
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	c.mu.Lock()
	var fresh, gone []string
	for _, name := range names {
		if e := c.entries[name]; e == nil || e.Updated.IsZero() {
			fresh = append(fresh, name)
		}
	}
	for name := range c.entries {
		if !there[name] {
			gone = append(gone, name)
		}
	}
	c.mu.Unlock()
	for _, name := range gone {
		if exists, err := c.depot.Exists(ctx, name); err == nil && !exists {
			c.forget(ctx, name)
		}
	}
	for _, name := range fresh {
		if ctx.Err() != nil {
			return
		}
		c.discover(ctx, name)
	}
}

// discover makes the entry of a repository from what the depot knows of its
// first hundred tags.
func (c *Catalog) discover(ctx context.Context, name string) {
	tags, err := c.depot.Tags(ctx, name, "", 100)
	if err != nil || len(tags) == 0 {
		return
	}
	var pushes []Push
	for _, tag := range tags {
		if t, err := c.depot.Tag(ctx, name, tag); err == nil {
			pushes = append(pushes, Push{tag, t.Digest.String(), t.By, t.Time.UTC()})
		}
	}
	if len(pushes) == 0 {
		return
	}
	slices.SortFunc(pushes, func(a, b Push) int { return b.Time.Compare(a.Time) })
	about := c.describe(ctx, name, pushes[0].Digest)
	c.mu.Lock()
	e := c.entry(name)
	if e.Updated.IsZero() { // no push came in between
		e.Pushes, e.Updated = pushes[:min(len(pushes), keptPushes)], pushes[0].Time
		e.Description = about.description
	}
	c.mu.Unlock()
	c.save(ctx, name)
}

// about is what a manifest says of its repository.
type about struct {
	description string
	readme      bool // the manifest is that of a README
}

func (c *Catalog) describe(ctx context.Context, repository, reference string) about {
	m, err := c.depot.StatManifest(ctx, repository, reference)
	if err != nil {
		return about{}
	}
	if m.ArtifactType == ReadmeArtifactType {
		return about{readme: true}
	}
	text := m.Annotations[ocispec.AnnotationDescription]
	if text == "" && m.Config != "" {
		if image, err := c.config(ctx, repository, m.Config); err == nil {
			text = image.Config.Labels[ocispec.AnnotationDescription]
		}
	}
	return about{description: oneLine(text)}
}

// oneLine makes a line that fits a table of anything.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1 // control characters, and those that reorder the line
		}
		return r
	}, text)
	if len(text) > maxDescription {
		text = strings.ToValidUTF8(text[:maxDescription], "") + "…"
	}
	return text
}
