package filter

import (
	"strconv"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Until reads the time before which something must have been made to be pruned;
// the zero time when the filter was not given.
func (a Args) Until(now time.Time) (time.Time, error) {
	switch values := a.Get("until"); len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
		return ParseTime(values[0], now)
	}
	return time.Time{}, errs.InvalidArgument("more than one until filter specified")
}

// ParseTime reads a duration ago, a Unix time or an RFC 3339 time, which may
// lack its end.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(0, int64(seconds*1e9)), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02T15Z07:00", "2006-01-02T15",
		"2006-01-02Z07:00", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errs.InvalidArgument("failed to parse value as time or duration: %q", s)
}

// MatchLabels tells whether the labels hold all of the filter label, and not all
// of label!.
func (a Args) MatchLabels(labels map[string]string) bool {
	return a.MatchKV("label", labels) && !(a.Has("label!") && a.MatchKV("label!", labels))
}
