package container

import (
	"regexp"
	"strconv"

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

func (m *Manager) publishPrune(reclaimed uint64) {
	m.opts.Events.Publish(events.Message{
		Type:   events.ContainerEventType,
		Action: events.ActionPrune,
		Actor:  events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(reclaimed, 10)}},
	})
}
