package registryd

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/metrics"
)

// Report is what a collection removed, or would.
type Report struct {
	Tags         int   `json:"tags"`
	Manifests    int   `json:"manifests"`
	Blobs        int   `json:"blobs"`
	Uploads      int   `json:"uploads"`
	Repositories int   `json:"repositories"`
	Bytes        int64 `json:"bytes"`
	// Items are the first of what went, up to maxItems.
	Items []Item `json:"items"`
	More  int    `json:"more,omitempty"`
}

// Item is one thing that went.
type Item struct {
	Kind       string `json:"kind"` // "tag", "manifest" or "blob"
	Repository string `json:"repository"`
	Name       string `json:"name"` // a tag or a digest
	Bytes      int64  `json:"bytes,omitempty"`
	Why        string `json:"why,omitempty"`
}

const maxItems = 10_000

func (r *Report) add(i Item) {
	if len(r.Items) == maxItems {
		r.More++
		return
	}
	r.Items = append(r.Items, i)
}

// retention is the rules of the configuration, checked.
func (c *Config) retention() (*depot.Retention, error) {
	r := &depot.Retention{}
	for _, rule := range c.Retention {
		r.Rules = append(r.Rules, depot.Rule{
			Repositories: rule.Repositories, Tags: rule.Tags, Keep: rule.Keep,
			KeepLast: rule.KeepLast, OlderThan: time.Duration(rule.OlderThan),
		})
	}
	return r, r.Check()
}

// collection lets tags go and then what nothing needs any more.
func collection(ctx context.Context, d depot.Depot, c *Config, dry bool) (*Report, error) {
	report := &Report{Items: []Item{}}
	rules, err := c.retention()
	if err != nil {
		return report, err
	}
	report.Tags, err = rules.Apply(ctx, d, time.Now(), dry, func(v depot.Verdict) {
		if v.Delete && !v.Kept {
			report.add(Item{Kind: "tag", Repository: v.Repository, Name: v.Tag.Name, Why: v.Reason})
		}
	})
	if err != nil {
		return report, err
	}
	done, err := depot.Collect(ctx, d, depot.Collection{
		Grace: time.Duration(c.GC.Grace), Untagged: c.GC.Untagged, Uploads: time.Duration(c.GC.Uploads), DryRun: dry,
		Removed: func(r depot.Removal) {
			kind := "blob"
			if r.Manifest {
				kind = "manifest"
			}
			report.add(Item{Kind: kind, Repository: r.Repository, Name: r.Digest.String(), Bytes: r.Bytes})
		},
	})
	report.Manifests, report.Blobs, report.Uploads = done.Manifests, done.Blobs, done.Uploads
	report.Repositories, report.Bytes = done.Repositories, done.Bytes
	return report, err
}

// runCollection collects in the depot that is being served, one at a time.
func (s *Server) runCollection(ctx context.Context, dry bool) (*Report, error) {
	s.collect.Lock()
	defer s.collect.Unlock()
	begin := time.Now()
	report, err := collection(ctx, s.depot, s.site.Load().config, dry)
	if dry {
		return report, err
	}
	s.metrics.Collected(metrics.Collection{
		Duration: time.Since(begin), Blobs: report.Blobs, Manifests: report.Manifests, Tags: report.Tags, Bytes: report.Bytes, Failed: err != nil,
	})
	if err == nil {
		s.log.Info("garbage was collected", "tags", report.Tags, "manifests", report.Manifests, "blobs", report.Blobs,
			"bytes", report.Bytes, "took", time.Since(begin).Round(time.Millisecond))
		s.collected(ctx, begin)
		s.catalog.Compare(ctx)
		s.measure(ctx)
	}
	return report, err
}

// collectAlone collects in a depot that nobody serves.
func collectAlone(ctx context.Context, c *Config, dry bool) (*Report, error) {
	d, err := openDepot(ctx, c)
	if err != nil {
		return nil, err
	}
	report, err := collection(ctx, d, c, dry)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return report, err
}

// collects collects at the times the present configuration says.
func (s *Server) collects(ctx context.Context) {
	s.measure(ctx)
	last := s.lastCollection(ctx)
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		every := time.Duration(s.site.Load().config.GC.Every)
		if every <= 0 || time.Since(last) < every {
			continue
		}
		last = time.Now()
		if _, err := s.runCollection(ctx, false); err != nil && ctx.Err() == nil {
			s.log.Error("garbage could not be collected", "error", err)
		}
	}
}

// collectedRecord keeps when garbage was collected last, so that a registry that
// is restarted every day still collects.
const collectedRecord = "registryd/collected"

func (s *Server) collected(ctx context.Context, at time.Time) {
	if err := s.depot.PutRecord(ctx, collectedRecord, []byte(at.UTC().Format(time.RFC3339))); err != nil {
		s.log.Warn("the time of the collection was not noted", "error", err)
	}
}

// lastCollection is now where there was none: a first start has nothing to
// collect.
func (s *Server) lastCollection(ctx context.Context) time.Time {
	now := time.Now()
	text, err := s.depot.Record(ctx, collectedRecord)
	if err == nil {
		if at, err := time.Parse(time.RFC3339, string(text)); err == nil && at.Before(now) {
			return at
		}
	}
	s.collected(ctx, now)
	return now
}

// measure counts what is stored, for the metrics: at the start and after each
// collection, as it looks at everything.
func (s *Server) measure(ctx context.Context) {
	seen := map[digest.Digest]bool{}
	var m metrics.Storage
	names, err := s.depot.Repositories(ctx, "", -1)
	for _, name := range names {
		if err != nil {
			break
		}
		err = s.depot.Blobs(ctx, name, func(b depot.Info) error {
			if !seen[b.Digest] {
				seen[b.Digest] = true
				m.Bytes += b.Size
			}
			return nil
		})
	}
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("the storage could not be counted", "error", err)
		}
		return
	}
	m.Repositories, m.Blobs = len(names), len(seen)
	s.metrics.SetStorage(m)
}
