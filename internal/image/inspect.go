package image

import (
	"context"
	"maps"
	"slices"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// InspectOptions says which image to describe, and how far.
type InspectOptions struct {
	Platform  *ocispec.Platform
	Manifests bool
}

// Inspect describes an image. It fails as Resolve does.
func (m *Manager) Inspect(ctx context.Context, ref string, opts InspectOptions) (*image.InspectResponse, error) {
	e, config, err := m.resolve(ref, opts.Platform)
	if err != nil {
		return nil, err
	}
	_, target, err := m.findTarget(ref)
	if err != nil {
		return nil, err
	}
	platform := platformOf(config)
	r := &image.InspectResponse{
		ID:           e.id.String(),
		Author:       config.Author,
		Config:       cloneConfig(&config.Config),
		Architecture: platform.Architecture,
		Variant:      platform.Variant,
		Os:           platform.OS,
		OsVersion:    platform.OSVersion,
		Size:         e.size(),
		GraphDriver:  &storage.DriverData{Name: m.opts.Snapshots.Name(), Data: m.opts.Snapshots.LayerDirs(e.diffIDs())},
		Descriptor:   &target,
		RootFS:       image.RootFS{Type: config.RootFS.Type, Layers: []string{}},
	}
	if r.GraphDriver.Data == nil {
		r.GraphDriver.Data = map[string]string{} // Docker's is never null
	}
	if config.Created != nil {
		r.Created = config.Created.Format(time.RFC3339Nano)
	}
	if n := len(config.History); n > 0 {
		r.Comment = config.History[n-1].Comment
	}
	for _, l := range e.Layers {
		r.RootFS.Layers = append(r.RootFS.Layers, l.DiffID.String())
	}
	m.mu.RLock()
	r.RepoTags, r.RepoDigests = m.names(e.id)
	for _, key := range m.references(e.id) {
		if t := m.byRef[key].Tagged; !isDigestKey(key) && t.After(r.Metadata.LastTagTime) {
			r.Metadata.LastTagTime = t
		}
	}
	keys := m.references(e.id)
	m.mu.RUnlock()
	if opts.Manifests {
		r.Manifests, err = m.manifests(ctx, e, config, keys)
	}
	return r, err
}

// Parent is the ID of the image this one was made from here; empty when it was
// not. It is part of what older API versions show.
func (m *Manager) Parent(id string) string {
	e, err := m.find(id)
	if err != nil {
		return ""
	}
	return e.Parent.String()
}

// cloneConfig is a copy the caller may change.
func cloneConfig(c *dockerspec.DockerOCIImageConfig) *dockerspec.DockerOCIImageConfig {
	n := *c
	n.Env, n.Cmd, n.Entrypoint = slices.Clone(c.Env), slices.Clone(c.Cmd), slices.Clone(c.Entrypoint)
	n.OnBuild, n.Shell = slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	n.Labels, n.Volumes, n.ExposedPorts = maps.Clone(c.Labels), maps.Clone(c.Volumes), maps.Clone(c.ExposedPorts)
	return &n
}

// History tells how the image was made, the last step first.
func (m *Manager) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	e, config, err := m.resolve(ref, platform)
	if err != nil {
		return nil, err
	}
	items := []image.HistoryResponseItem{}
	layers := e.Layers
	for _, h := range config.History {
		item := image.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && len(layers) > 0 {
			item.Size, layers = layers[0].Size, layers[1:]
		}
		items = append(items, item)
	}
	// Layers no step speaks of are there all the same.
	for _, l := range layers {
		items = append(items, image.HistoryResponseItem{ID: "<missing>", Created: createdUnix(config), Size: l.Size})
	}
	slices.Reverse(items)
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := 0; i < len(items) && e != nil; i++ {
		items[i].ID = e.id.String()
		if tags, _ := m.names(e.id); len(tags) > 0 {
			items[i].Tags = tags
		}
		e = m.byID[e.Parent]
	}
	return items, nil
}

func createdUnix(config *dockerspec.DockerOCIImage) int64 {
	if config.Created == nil {
		return 0
	}
	return config.Created.Unix()
}
