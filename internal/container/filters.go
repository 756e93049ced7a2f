package container

import (
	"strconv"

	"github.com/moby/moby/api/types/events"
)

func (m *Manager) publishPrune(reclaimed uint64) {
	m.opts.Events.Publish(events.Message{
		Type:   events.ContainerEventType,
		Action: events.ActionPrune,
		Actor:  events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(reclaimed, 10)}},
	})
}
