package depot_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

const rules = `
[[rule]]
repositories = ["team/**"]
tags = ["pr-*"]
keep = ["pr-main"]
keep-last = 2
older-than = "24h"

[[rule]]
repositories = ["cache"]
keep-last = 1
`

// What a person would lose: tags the rules were to keep, or a disk the rules
// were to keep from filling.
func TestRetention(t *testing.T) {
	r, err := depot.ParseRetention([]byte(rules))
	must(t, err)
	d := open(t)
	set := func(repository string, tags ...string) {
		for _, tag := range tags {
			manifest(t, d, repository, repository+tag, depot.Manifest{}, tag)
		}
	}
	set("team/a/b", "pr-main", "pr-1", "pr-2", "pr-3", "pr-4", "v1")
	set("team", "pr-1", "pr-2", "pr-3")
	set("cache", "x", "y")
	all := func() (all []string) {
		for _, repository := range []string{"cache", "team", "team/a/b"} {
			tags, err := d.Tags(ctx, repository, "", -1)
			must(t, err)
			all = append(all, repository+" "+strings.Join(tags, " "))
		}
		return all
	}
	before := all()
	var told []string
	note := func(v depot.Verdict) {
		told = append(told, fmt.Sprintf("%s:%s %v %s", v.Repository, v.Tag.Name, v.Delete, v.Reason))
	}
	later := time.Now().Add(48 * time.Hour)
	n, err := r.Apply(ctx, d, later, true, note)
	must(t, err)
	want := []string{
		"cache:y false one of the last 1",
		"cache:x true not one of the last 1",
		"team/a/b:pr-4 false one of the last 2",
		"team/a/b:pr-3 false one of the last 2",
		"team/a/b:pr-2 true older than 24h0m0s",
		"team/a/b:pr-1 true older than 24h0m0s",
		"team/a/b:pr-main false always kept",
	}
	if n != 3 || !slices.Equal(told, want) {
		t.Errorf("%d\n%s", n, strings.Join(told, "\n"))
	}
	if !slices.Equal(all(), before) {
		t.Errorf("a dry run deleted: %v", all())
	}
	if n, err := r.Apply(ctx, d, time.Now(), false, nil); err != nil || n != 1 {
		t.Errorf("young tags: %d, %v", n, err)
	}
	if n, err := r.Apply(ctx, d, later, false, nil); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	if got := all(); !slices.Equal(got, []string{"cache y", "team pr-1 pr-2 pr-3", "team/a/b pr-3 pr-4 pr-main v1"}) {
		t.Errorf("%q", got)
	}
}

func TestRetentionErrors(t *testing.T) {
	for text, want := range map[string]string{
		"[[rule]]\ntags = [\"*\"]":                "neither keep-last nor older-than",
		"[[rule]]\nolder-than = \"30d\"":          `"30d" is no duration`,
		"[[rule]]\nkeep-last = -1":                "negative",
		"[[rule]]\nkeep-last = 1\ntags = [\"[\"]": `"[" is no pattern`,
		"[[rule]]\nkeep-last = 1\nkeeplast = 2":   "line 3: there is no setting rule.keeplast",
		"[[rule]]\nkeep-last = \"many\"":          "line 2",
		"[[rule":                                  "line 1",
	} {
		if _, err := depot.ParseRetention([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v, not %q", text, err, want)
		}
	}
}

func FuzzParseRetention(f *testing.F) {
	f.Add([]byte(rules))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := depot.ParseRetention(data)
		if err != nil {
			return
		}
		now := time.Now()
		for _, v := range r.Judge("team/app", []depot.Tag{{Name: "pr-1", Time: now}, {Name: "v1", Time: now.Add(-time.Hour)}}, now) {
			if v.Reason == "" {
				t.Errorf("%+v", v)
			}
		}
	})
}

// The names the specification allows, and those it does not.
func TestCheckNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "0": true, "a/b": true, "a.b": true, "a_b": true, "a__b": true, "a-b": true, "a---b": true, "a.b_c__d--e/f0": true,
		"": false, "A": false, "a/": false, "/a": false, "a//b": false, ".a": false, "a.": false, "a..b": false, "a___b": false,
		"a._b": false, "a-_b": false, "a b": false, "ä": false, "a/../b": false, strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
	} {
		if err := depot.CheckRepository(name); (err == nil) != want {
			t.Errorf("repository %q: %v", name, err)
		}
	}
	for tag, want := range map[string]bool{
		"a": true, "_": true, "A.b-c_": true, strings.Repeat("x", 128): true, "v1.0--": true,
		"": false, ".": false, "-a": false, "a/b": false, "a:b": false, "a+b": false, strings.Repeat("x", 129): false,
	} {
		if err := depot.CheckTag(tag); (err == nil) != want {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
}
