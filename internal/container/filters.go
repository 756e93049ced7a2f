package container

import (
	"regexp"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

// patterns returns whether a string matches one of the regular expressions of a
// filter; nil when it was not given.
func patterns(f filter.Args, key string) (func(string) bool, error) {
	var compiled []*regexp.Regexp
	for _, s := range f.Get(key) {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, errs.InvalidArgument("invalid filter '%s=%s': %w", key, s, err)
		}
		compiled = append(compiled, re)
	}
	if compiled == nil {
		return nil, nil
	}
	return func(s string) bool {
		for _, re := range compiled {
			if re.MatchString(s) {
				return true
			}
		}
		return false
	}, nil
}

// untilFilter reads the "until" of a prune: a duration ago, a Unix time or an
// RFC 3339 time.
func untilFilter(f filter.Args) (time.Time, error) {
	values := f.Get("until")
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, errs.InvalidArgument("more than one until filter specified")
	}
	s := values[0]
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(0, int64(seconds*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errs.InvalidArgument("invalid filter 'until=%s'", s)
}

func (m *Manager) publishPrune(reclaimed uint64) {
	m.opts.Events.Publish(events.Message{
		Type:   events.ContainerEventType,
		Action: events.ActionPrune,
		Actor:  events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(reclaimed, 10)}},
	})
}
