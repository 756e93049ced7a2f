// Package filter holds the filters of the Engine API's list and prune calls:
// a set of values for each key, as the "filters" query parameter carries them.
package filter

import (
	"encoding/json"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Args maps a filter's key to the values asked for. A nil Args matches all.
type Args map[string][]string

// Parse decodes the "filters" parameter in both encodings of the Engine API:
// {"key":["value"]} and, of API versions before 1.22, {"key":{"value":true}}.
func Parse(s string) (Args, error) {
	if s == "" {
		return nil, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &raw); err != nil {
		return nil, errs.InvalidArgument("invalid filter: %w", err)
	}
	args := make(Args, len(raw))
	for key, value := range raw {
		var list []string
		if json.Unmarshal(value, &list) == nil {
			args[key] = list
			continue
		}
		var set map[string]bool
		if err := json.Unmarshal(value, &set); err != nil {
			return nil, errs.InvalidArgument("invalid filter: %s: %w", key, err)
		}
		for v, on := range set {
			if on {
				args[key] = append(args[key], v)
			}
		}
		sort.Strings(args[key])
	}
	return args, nil
}

// Has tells whether the key was given at all.
func (a Args) Has(key string) bool { return len(a[key]) > 0 }

// Get returns the values given for the key.
func (a Args) Get(key string) []string { return a[key] }

// Validate returns an error that names the first key which is not allowed.
func (a Args) Validate(allowed ...string) error {
	keys := make([]string, 0, len(a))
	for key := range a {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		if !slices.Contains(allowed, key) {
			return errs.InvalidArgument("invalid filter '%s'", key)
		}
	}
	return nil
}

// ExactMatch tells whether value is one of those given, or none was given.
func (a Args) ExactMatch(key, value string) bool {
	return !a.Has(key) || slices.Contains(a[key], value)
}

// Match tells whether value is one of those given or matches one of them as a
// regular expression, or none was given. What is no regular expression is no
// error: it may be meant as it is.
func (a Args) Match(key, value string) bool {
	return a.ExactMatch(key, value) || slices.ContainsFunc(a[key], func(want string) bool {
		re, err := regexp.Compile(want)
		return err == nil && re.MatchString(value)
	})
}

// MatchKV tells whether the labels hold every "name" or "name=value" given.
func (a Args) MatchKV(key string, labels map[string]string) bool {
	for _, want := range a[key] {
		name, value, hasValue := strings.Cut(want, "=")
		have, ok := labels[name]
		if !ok || hasValue && have != value {
			return false
		}
	}
	return true
}

// Bool reads a filter that is true or false; without it, it is def.
func (a Args) Bool(key string, def bool) (bool, error) {
	if !a.Has(key) {
		return def, nil
	}
	values := map[bool]bool{}
	for _, s := range a[key] {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return def, errs.InvalidArgument("invalid filter '%s=%s'", key, s)
		}
		values[b] = true
	}
	if len(values) != 1 {
		return def, errs.InvalidArgument("invalid filter '%s': both true and false were given", key)
	}
	return values[true], nil
}
