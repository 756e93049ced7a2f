package state

import (
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/filter"
)

const (
	eventHistory = 256  // events kept for --since, as many as Docker keeps
	eventBacklog = 8192 // events a subscriber may be behind before it is cut off
)

// Events tells what happened to the things of the engine, and remembers the
// last of it. The zero value is ready for use.
type Events struct {
	mu   sync.Mutex // guards what follows
	past []events.Message
	subs map[*Subscription]struct{}
}

// Subscription is one listener. Its channel C is closed after Close, and when
// the listener fell so far behind that events would have been lost.
type Subscription struct {
	C      <-chan events.Message
	Past   []events.Message // what had happened since the time asked for
	c      chan events.Message
	events *Events
	filter filter.Args
}

// Publish stamps the message with the present time and passes it on. It never
// waits for a listener.
func (e *Events) Publish(m events.Message) {
	now := time.Now()
	m.Scope, m.Time, m.TimeNano = "local", now.Unix(), now.UnixNano()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.past) == eventHistory {
		e.past = append(e.past[:0], e.past[1:]...)
	}
	e.past = append(e.past, m)
	for s := range e.subs {
		if !Included(m, s.filter) {
			continue
		}
		select {
		case s.c <- m:
		default:
			e.drop(s)
		}
	}
}

// Subscribe starts listening for what the filter includes. Past holds the
// remembered events not before since; none when since is zero.
func (e *Events) Subscribe(since time.Time, f filter.Args) *Subscription {
	c := make(chan events.Message, eventBacklog)
	s := &Subscription{C: c, c: c, events: e, filter: f}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !since.IsZero() {
		for _, m := range e.past {
			if m.TimeNano >= since.UnixNano() && Included(m, f) {
				s.Past = append(s.Past, m)
			}
		}
	}
	if e.subs == nil {
		e.subs = map[*Subscription]struct{}{}
	}
	e.subs[s] = struct{}{}
	return s
}

// Listeners returns how many subscriptions there are.
func (e *Events) Listeners() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subs)
}

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	s.events.drop(s)
}

// drop is called with mu held.
func (e *Events) drop(s *Subscription) {
	if _, ok := e.subs[s]; ok {
		delete(e.subs, s)
		close(s.c)
	}
}

// Included tells whether an event passes the filters of Docker's events call.
func Included(m events.Message, f filter.Args) bool {
	if f == nil {
		return true
	}
	return includesAction(m.Action, f) &&
		f.ExactMatch("type", string(m.Type)) &&
		f.ExactMatch("scope", m.Scope) &&
		includesActor(m, f) &&
		includesImage(m, f) &&
		f.MatchKV("label", m.Actor.Attributes)
}

func includesAction(action events.Action, f filter.Args) bool {
	if !f.Has("event") {
		return true
	}
	for _, want := range f.Get("event") {
		if string(action) == want {
			return true
		}
		switch events.Action(want) {
		case events.ActionHealthStatus, events.ActionExecCreate, events.ActionExecStart:
			// These actions carry more text after a colon.
			if strings.HasPrefix(string(action), want) {
				return true
			}
		}
	}
	return false
}

// includesActor checks the filters that are named after a type and take an ID
// or a name, or the beginning of one.
func includesActor(m events.Message, f filter.Args) bool {
	for _, t := range []events.Type{events.ContainerEventType, events.VolumeEventType, events.NetworkEventType,
		events.DaemonEventType, events.PluginEventType} {
		if !f.Has(string(t)) {
			continue
		}
		found := false
		for _, want := range f.Get(string(t)) {
			found = found || strings.HasPrefix(m.Actor.ID, want) || strings.HasPrefix(m.Actor.Attributes["name"], want)
		}
		if !found {
			return false
		}
	}
	return true
}

// includesImage matches image events, and those of containers made from it.
func includesImage(m events.Message, f filter.Args) bool {
	if !f.Has("image") {
		return true
	}
	name := m.Actor.Attributes["image"]
	if m.Type == events.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	for _, candidate := range []string{m.Actor.ID, name, withoutTag(m.Actor.ID), withoutTag(name)} {
		if f.ExactMatch("image", candidate) {
			return true
		}
	}
	return false
}

func withoutTag(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	return reference.FamiliarName(named)
}
