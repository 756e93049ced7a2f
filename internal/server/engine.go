package server

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"

	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/filter"
)

// New returns the API of an engine.
func New(e *engine.Engine, o Options) *Server {
	return newServer(backend{
		containers: e.Containers,
		images:     e.Images,
		volumes:    e.Volumes,
		networks:   e.Networks,
		system:     engineInfo{e},
		registries: e.Registries,
	}, o)
}

// engineInfo is what the engine as a whole knows.
type engineInfo struct{ *engine.Engine }

func (e engineInfo) Version(ctx context.Context) (*system.VersionResponse, error) {
	return e.VersionInfo(ctx)
}

// Subscribe returns remembered events and a channel of those to come, which is
// closed when its reader is too slow.
func (e engineInfo) Subscribe(since time.Time, f filter.Args) ([]events.Message, <-chan events.Message, func()) {
	s := e.Events.Subscribe(since, f)
	return s.Past, s.C, s.Close
}
