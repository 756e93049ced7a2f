package depot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Retention says which tags a registry keeps. Each tag is judged by the first
// rule that is for it; one that no rule is for is kept. A manifest that has lost
// its last tag goes with the next collection, if that removes Untagged ones.
type Retention struct {
	Rules []Rule
}

// Rule is one [[rule]] of a retention file:
//
//	[[rule]]
//	repositories = ["team/**"]   # default: all
//	tags = ["pr-*"]              # default: all
//	keep = ["pr-main", "v*"]     # these always stay
//	keep-last = 10               # so do the ten set last
//	older-than = "720h"          # only what was set longer ago goes
//
// Of what is left by keep and keep-last, older-than decides; without it, all of
// that goes. A rule has keep-last, older-than or both.
//
// In patterns * and ? match within a word, [a-z] one of a range, and a final /**
// everything below; ** alone matches everything.
type Rule struct {
	Repositories []string
	Tags         []string
	Keep         []string
	KeepLast     int
	OlderThan    time.Duration
}

// ParseRetention reads a retention file in TOML. Errors say the line.
func ParseRetention(data []byte) (*Retention, error) {
	var file struct {
		Rule []struct {
			Repositories []string `toml:"repositories"`
			Tags         []string `toml:"tags"`
			Keep         []string `toml:"keep"`
			KeepLast     int      `toml:"keep-last"`
			OlderThan    string   `toml:"older-than"`
		} `toml:"rule"`
	}
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, errs.InvalidArgument("cannot read the retention rules: %s", tomlError(err))
	}
	r := &Retention{}
	for i, f := range file.Rule {
		rule := Rule{f.Repositories, f.Tags, f.Keep, f.KeepLast, 0}
		if f.OlderThan != "" {
			age, err := time.ParseDuration(f.OlderThan)
			if err != nil || age < 0 {
				return nil, errs.InvalidArgument("retention rule %d: older-than = %q is no duration like 720h", i+1, f.OlderThan)
			}
			rule.OlderThan = age
		}
		if err := rule.check(); err != nil {
			return nil, errs.InvalidArgument("retention rule %d: %w", i+1, err)
		}
		r.Rules = append(r.Rules, rule)
	}
	return r, nil
}

// Check fails with ErrInvalidArgument when a rule would be refused in a file.
func (r *Retention) Check() error {
	for i := range r.Rules {
		if err := r.Rules[i].check(); err != nil {
			return errs.InvalidArgument("retention rule %d: %w", i+1, err)
		}
	}
	return nil
}

func tomlError(err error) string {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Sprintf("line %d: there is no setting %s", row, strings.Join(strict.Errors[0].Key(), "."))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Sprintf("line %d, column %d: %v", row, column, err)
	}
	return err.Error()
}

func (r *Rule) check() error {
	if r.KeepLast < 0 {
		return errs.InvalidArgument("keep-last = %d is negative", r.KeepLast)
	}
	if r.KeepLast == 0 && r.OlderThan == 0 {
		return errs.InvalidArgument("it has neither keep-last nor older-than, so it would delete every tag it is for")
	}
	for _, patterns := range [][]string{r.Repositories, r.Tags, r.Keep} {
		for _, pattern := range patterns {
			if _, err := path.Match(strings.TrimSuffix(pattern, "/**"), ""); err != nil {
				return errs.InvalidArgument("%q is no pattern", pattern)
			}
		}
	}
	return nil
}

// match tells whether one of the patterns matches; no patterns match all.
func match(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		if pattern == "**" {
			return true
		}
		if below, ok := strings.CutSuffix(pattern, "/**"); ok {
			// As many words of the name as the pattern has.
			words := strings.Split(name, "/")
			n := strings.Count(below, "/") + 1
			if len(words) <= n {
				return false
			}
			ok, _ := path.Match(below, strings.Join(words[:n], "/"))
			return ok
		}
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

// Verdict is what a retention decides of a tag that a rule is for.
type Verdict struct {
	Repository string
	Tag        Tag
	Rule       int // counted from 1
	Delete     bool
	// Reason is a phrase: "one of the last 10", "older than 720h0m0s".
	Reason string
	// Kept tells that the tag was to be deleted and was moved meanwhile.
	Kept bool
}

// Apply judges every tag at the time now and deletes those that are to go,
// unless dryRun. told, when not nil, learns of each tag that a rule is for. It
// returns how many tags were (or would be) deleted. It needs memory for the tags
// of one repository at a time.
func (r *Retention) Apply(ctx context.Context, d Depot, now time.Time, dryRun bool, told func(Verdict)) (deleted int, err error) {
	const page = 100
	for after := ""; ; {
		names, err := d.Repositories(ctx, after, page)
		if err != nil {
			return deleted, err
		}
		for _, name := range names {
			n, err := r.repository(ctx, d, name, now, dryRun, told)
			deleted += n
			if err != nil {
				return deleted, err
			}
			after = name
		}
		if len(names) < page {
			return deleted, nil
		}
	}
}

func (r *Retention) repository(ctx context.Context, d Depot, name string, now time.Time, dryRun bool, told func(Verdict)) (deleted int, err error) {
	if !slices.ContainsFunc(r.Rules, func(rule Rule) bool { return match(rule.Repositories, name) }) {
		return 0, nil
	}
	names, err := d.Tags(ctx, name, "", -1)
	if err != nil {
		return 0, err
	}
	tags := make([]Tag, 0, len(names))
	for _, tag := range names {
		t, err := d.Tag(ctx, name, tag)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // was deleted meanwhile
		}
		if err != nil {
			return 0, err
		}
		tags = append(tags, t)
	}
	for _, v := range r.Judge(name, tags, now) {
		if v.Delete && !dryRun {
			dropped, err := d.DropTag(ctx, name, v.Tag)
			if err != nil {
				return deleted, err
			}
			v.Kept = !dropped
		}
		if v.Delete && !v.Kept {
			deleted++
		}
		if told != nil {
			told(v)
		}
	}
	return deleted, nil
}

// Judge decides of a repository's tags, the last set first. Tags that no rule is
// for are left out.
func (r *Retention) Judge(repository string, tags []Tag, now time.Time) []Verdict {
	tags = slices.Clone(tags)
	slices.SortFunc(tags, func(a, b Tag) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	seen := make([]int, len(r.Rules)) // by each rule, of those that keep does not save
	var verdicts []Verdict
	for _, tag := range tags {
		i := slices.IndexFunc(r.Rules, func(rule Rule) bool {
			return match(rule.Repositories, repository) && match(rule.Tags, tag.Name)
		})
		if i < 0 {
			continue
		}
		rule := &r.Rules[i]
		v := Verdict{Repository: repository, Tag: tag, Rule: i + 1}
		switch {
		case len(rule.Keep) > 0 && match(rule.Keep, tag.Name):
			v.Reason = "always kept"
			verdicts = append(verdicts, v)
			continue
		case seen[i] < rule.KeepLast:
			v.Reason = fmt.Sprintf("one of the last %d", rule.KeepLast)
		case rule.OlderThan > 0 && now.Sub(tag.Time) <= rule.OlderThan:
			v.Reason = fmt.Sprintf("not older than %s", rule.OlderThan)
		case rule.OlderThan > 0:
			v.Delete, v.Reason = true, fmt.Sprintf("older than %s", rule.OlderThan)
		default:
			v.Delete, v.Reason = true, fmt.Sprintf("not one of the last %d", rule.KeepLast)
		}
		seen[i]++
		verdicts = append(verdicts, v)
	}
	return verdicts
}
