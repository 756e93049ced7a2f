// Package mirror has a registry stand in front of others: what is asked for and
// not here is fetched there, kept, and handed on while it arrives.
//
// It owns which repositories are those of which other registry, how long a tag
// is believed, and the fetches under way, each of which serves all who ask for
// the same thing meanwhile. It implements serve.Upstream. Talking to the other
// registry is registry's, storage depot's.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// Remote is another registry.
type Remote struct {
	// Prefix is what the names of mirrored repositories begin with here, and
	// not there: with the prefix "hub", hub/library/busybox is the other's
	// library/busybox. Empty mirrors it under the same names.
	Prefix string
	// Registry is its host, with a port when that is not 443.
	Registry string
	// Path is put before the names there.
	Path string
	// Credentials are sent to that registry, and its token server only.
	Credentials *registry.AuthConfig
	// TTL is how long a tag is believed before the other registry is asked
	// again, by a HEAD; 0 means a minute.
	TTL time.Duration
}

// Options configures a Mirror.
type Options struct {
	Remotes []Remote
	Depot   depot.Depot
	Client  *registry.Client
	// Spool is a directory on a disk, for blobs on their way through. What is
	// in it has no name and is gone with the process.
	Spool string
	// Count is told what happens: hit, fetch, revalidated, stale, error, and
	// the bytes fetched.
	Count func(what string, n float64)
	Log   *slog.Logger
}

// Mirror is a serve.Upstream.
type Mirror struct {
	opts    Options
	log     *slog.Logger
	remotes []*remote // the longest prefix first
	flights singleflight.Group

	mu      sync.Mutex // guards what follows
	checked map[string]time.Time
	fetches map[string]*fetch
}

var _ serve.Upstream = (*Mirror)(nil)

// remote is a Remote and what is known of its state.
type remote struct {
	Remote

	mu      sync.Mutex // guards what follows
	down    time.Time  // until when it is not asked
	failure error
}

const (
	defaultTTL   = time.Minute
	restAfter    = 10 * time.Second // a registry that is down is left alone for so long
	manifestTime = 2 * time.Minute  // a manifest is fetched in that, or not at all
	maxChecked   = 100_000
)

// New checks the remotes. It asks none of them.
func New(o Options) (*Mirror, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Count == nil {
		o.Count = func(string, float64) {}
	}
	m := &Mirror{opts: o, log: o.Log, checked: map[string]time.Time{}, fetches: map[string]*fetch{}}
	for _, r := range o.Remotes {
		r.Prefix, r.Path = strings.Trim(r.Prefix, "/"), strings.Trim(r.Path, "/")
		if r.TTL <= 0 {
			r.TTL = defaultTTL
		}
		for _, name := range []string{r.Prefix, r.Path} {
			if name == "" {
				continue
			}
			if err := depot.CheckRepository(name); err != nil {
				return nil, errs.InvalidArgument("mirror of %s: %w", r.Registry, err)
			}
		}
		if _, err := reference.ParseNormalizedNamed(r.Registry + "/x/y"); err != nil || !isHost(r.Registry) {
			return nil, errs.InvalidArgument("mirror: %q is no registry's host, as registry.example or registry.example:5000", r.Registry)
		}
		if slices.ContainsFunc(m.remotes, func(other *remote) bool { return other.Prefix == r.Prefix }) {
			return nil, errs.InvalidArgument("two mirrors have the prefix %q", r.Prefix)
		}
		m.remotes = append(m.remotes, &remote{Remote: r})
	}
	slices.SortStableFunc(m.remotes, func(a, b *remote) int { return len(b.Prefix) - len(a.Prefix) })
	return m, nil
}

// isHost tells what reference takes for a host from what it takes for the first
// part of a name on Docker Hub.
func isHost(s string) bool {
	return !strings.Contains(s, "/") && (strings.ContainsAny(s, ".:") || s == "localhost")
}

// Of tells which registry a repository is a mirror of; ok is false for none.
func (m *Mirror) Of(repository string) (host string, ok bool) {
	if r, _ := m.find(repository); r != nil {
		return r.Registry, true
	}
	return "", false
}

// find is the remote of a repository, and the repository's name there.
func (m *Mirror) find(repository string) (*remote, string) {
	for _, r := range m.remotes {
		name := repository
		if r.Prefix != "" {
			rest, ok := strings.CutPrefix(repository, r.Prefix+"/")
			if !ok {
				continue
			}
			name = rest
		}
		if r.Path != "" {
			name = r.Path + "/" + name
		}
		return r, name
	}
	return nil, ""
}

// open reaches for the other registry's repository.
func (m *Mirror) open(ctx context.Context, repository string) (*remote, *registry.Repository, error) {
	r, name := m.find(repository)
	if r == nil {
		return nil, nil, errs.NotFound("repository %s is not mirrored", repository)
	}
	if err := r.resting(); err != nil {
		return r, nil, err
	}
	named, err := reference.ParseNormalizedNamed(r.Registry + "/" + name)
	if err != nil {
		return r, nil, errs.NotFound("repository %s cannot be one of %s: %w", repository, r.Registry, err)
	}
	repo, err := m.opts.Client.Repository(ctx, named, r.Credentials)
	r.note(err)
	return r, repo, err
}

// resting is why the registry is not asked now, or nil.
func (r *remote) resting() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().Before(r.down) {
		return r.failure
	}
	return nil
}

// note remembers that a registry is down, so that not every client waits to find
// that out, or that it is up.
func (r *remote) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.down = time.Time{}
	case errors.Is(err, errdefs.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		r.down, r.failure = time.Now().Add(restAfter), err
	}
}

// once runs f for all who ask for the key at a time. It goes on when those who
// asked have left: what it fetches, the next one wants.
func (m *Mirror) once(ctx context.Context, key string, f func(context.Context) error) error {
	done := m.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), manifestTime)
		defer cancel()
		return nil, f(ctx)
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Manifest implements serve.Upstream.
func (m *Mirror) Manifest(ctx context.Context, repository, ref string) error {
	r, _ := m.find(repository)
	if r == nil {
		return errs.NotFound("repository %s is not mirrored", repository)
	}
	key := repository + "@" + ref
	if dgst, err := digest.Parse(ref); err == nil {
		return m.once(ctx, key, func(ctx context.Context) error { return m.fetchManifest(ctx, repository, dgst.String(), "") })
	}
	if m.fresh(key, r.TTL) {
		if _, err := m.opts.Depot.Tag(ctx, repository, ref); err == nil {
			m.opts.Count("hit", 1)
			return nil
		}
	}
	err := m.once(ctx, key, func(ctx context.Context) error { return m.revalidate(ctx, repository, ref) })
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) && ctx.Err() == nil {
		if _, terr := m.opts.Depot.Tag(ctx, repository, ref); terr == nil {
			m.opts.Count("stale", 1)
			m.log.Warn("a tag is served as it was", "repository", repository, "tag", ref, "error", err)
			return fmt.Errorf("%s:%s may be out of date: %w", repository, ref, err)
		}
		m.opts.Count("error", 1)
	}
	return err
}

func (m *Mirror) fresh(key string, ttl time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.checked[key]
	return ok && time.Since(at) < ttl
}

func (m *Mirror) check(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.checked) >= maxChecked {
		clear(m.checked) // each is asked for once more
	}
	m.checked[key] = time.Now()
}

// revalidate asks what the tag names there, and has it named here.
func (m *Mirror) revalidate(ctx context.Context, repository, tag string) error {
	r, repo, err := m.open(ctx, repository)
	if err != nil {
		return err
	}
	desc, err := repo.Resolve(ctx, tag)
	r.note(err)
	if errors.Is(err, errdefs.ErrNotFound) {
		return m.gone(ctx, repository, tag, err)
	}
	if err != nil {
		return err
	}
	if here, err := m.opts.Depot.Tag(ctx, repository, tag); err == nil && here.Digest == desc.Digest {
		m.opts.Count("revalidated", 1)
		m.check(repository + "@" + tag)
		return nil
	}
	if err := m.fetchManifest(ctx, repository, desc.Digest.String(), tag); err != nil {
		return err
	}
	m.check(repository + "@" + tag)
	return nil
}

// gone takes back a tag that was deleted there. What it named stays until a
// collection.
func (m *Mirror) gone(ctx context.Context, repository, tag string, err error) error {
	if derr := m.opts.Depot.DeleteTag(ctx, repository, tag); derr == nil {
		m.log.Info("a tag is gone from the mirrored registry", "repository", repository, "tag", tag)
	} else if !errors.Is(derr, errdefs.ErrNotFound) {
		return derr
	}
	return err
}

// fetchManifest brings a manifest here, and points the tag at it.
func (m *Mirror) fetchManifest(ctx context.Context, repository, dgst, tag string) error {
	body, mediaType, err := m.manifest(ctx, repository, dgst)
	if err != nil {
		return err
	}
	parsed, err := serve.ParseManifest(mediaType, body)
	if err != nil {
		return err
	}
	parsed.Digest, parsed.Pushed = digest.Digest(dgst), time.Now()
	var tags []string
	if tag != "" {
		tags = []string{tag}
	}
	return m.opts.Depot.PutManifest(ctx, repository, parsed, body, depot.PutOptions{Tags: tags, Sparse: true})
}

// manifest is what the depot has under the digest, or what the other registry
// has.
func (m *Mirror) manifest(ctx context.Context, repository, dgst string) (body []byte, mediaType string, err error) {
	if here, body, err := m.opts.Depot.Manifest(ctx, repository, dgst); err == nil {
		return body, here.MediaType, nil
	}
	r, repo, err := m.open(ctx, repository)
	if err != nil {
		return nil, "", err
	}
	desc, body, err := repo.Manifest(ctx, dgst)
	r.note(err)
	if err != nil {
		return nil, "", err
	}
	m.opts.Count("fetch", 1)
	m.opts.Count("bytes", float64(len(body)))
	return body, desc.MediaType, nil
}
