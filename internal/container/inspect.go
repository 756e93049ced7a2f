package container

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/gantry-containers/gantry/internal/du"
	"github.com/gantry-containers/gantry/internal/ocispec"
)

// Inspect returns all there is to know of a container; with size also what its
// file system takes.
func (m *Manager) Inspect(ctx context.Context, ref string, size bool) (*api.InspectResponse, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return nil, err
	}
	rec := c.copy()
	host := *rec.HostConfig
	host.Links = m.shownLinks(&rec)
	config := *rec.Config
	answer := &api.InspectResponse{
		ID:              rec.ID,
		Created:         rec.Created.Format(time.RFC3339Nano),
		Path:            rec.Path,
		Args:            orEmpty(rec.Args),
		State:           c.apiState(&rec),
		Image:           rec.ImageID.String(),
		Name:            "/" + rec.Name,
		RestartCount:    rec.RestartCount,
		Driver:          rec.Driver,
		Platform:        rec.Platform,
		ExecIDs:         c.execIDs(),
		HostConfig:      &host,
		Config:          &config,
		Mounts:          mountPoints(&rec),
		NetworkSettings: networkSettings(&rec),
		GraphDriver:     &storage.DriverData{Name: rec.Driver, Data: m.opts.Snapshots.Dirs(rec.ID)},
	}
	if ocispec.AppArmorEnabled() {
		answer.AppArmorProfile = ocispec.AppArmorProfile(&host, m.opts.Defaults.AppArmorProfile)
	}
	if rec.HasBeenStarted {
		if rec.ResolvedLogDriver == "json-file" {
			answer.LogPath = m.logPath(&rec)
		}
		dir := m.dir(rec.ID)
		answer.ResolvConfPath = filepath.Join(dir, "resolv.conf")
		answer.HostnamePath = filepath.Join(dir, "hostname")
		answer.HostsPath = filepath.Join(dir, "hosts")
	}
	if size {
		rw, total, err := m.sizes(ctx, &rec)
		if err != nil {
			return nil, err
		}
		answer.SizeRw, answer.SizeRootFs = &rw, &total
	}
	return answer, nil
}

// sizes returns the bytes of the writable layer and of the whole file system.
func (m *Manager) sizes(ctx context.Context, rec *Record) (rw, total int64, err error) {
	rw, _, err = m.opts.Snapshots.Usage(ctx, rec.ID)
	if err != nil {
		return 0, 0, err
	}
	rw -= m.ownSize(rec.ID)
	layers, err := m.opts.Snapshots.Layers(ctx)
	if err != nil {
		return 0, 0, err
	}
	total = rw
	for _, l := range layers {
		if slices.Contains(rec.Layers, l.DiffID) {
			total += l.Size
		}
	}
	return rw, total, nil
}

// Disk returns what a container takes on disk, in bytes of blocks: its writable
// layer, its log and the files the engine keeps for it.
func (m *Manager) Disk(ctx context.Context, id string) (int64, error) {
	tree, err := m.opts.Snapshots.SnapshotDisk(ctx, id)
	if err != nil {
		return 0, err
	}
	files, err := du.Tree(ctx, m.dir(id))
	return tree + files, err
}

func (c *Container) apiState(rec *Record) *api.State {
	s := rec.State
	status := s.Status
	return &api.State{
		Status:     status,
		Running:    rec.running() || status == api.StateRestarting,
		Paused:     status == api.StatePaused,
		Restarting: status == api.StateRestarting,
		Dead:       status == api.StateDead,
		OOMKilled:  s.OOMKilled,
		Pid:        s.Pid,
		ExitCode:   s.ExitCode,
		Error:      s.Error,
		StartedAt:  apiTime(s.StartedAt),
		FinishedAt: apiTime(s.FinishedAt),
		Health:     c.healthState(),
	}
}

// apiTime writes a time as the API does: a zero one is the year 1.
func apiTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func mountPoints(rec *Record) []api.MountPoint {
	points := make([]api.MountPoint, 0, len(rec.Mounts))
	for i := range rec.Mounts {
		points = append(points, rec.Mounts[i].mountPoint())
	}
	return points
}

func networkSettings(rec *Record) *api.NetworkSettings {
	settings := &api.NetworkSettings{Ports: network.PortMap{}, Networks: map[string]*network.EndpointSettings{}}
	if n := rec.Network; n != nil {
		settings.SandboxID = n.SandboxID
		if rec.State.Pid != 0 {
			settings.SandboxKey = netNSPath(rec.State.Pid)
		}
		if n.Ports != nil {
			settings.Ports = n.Ports
		}
		settings.Networks = n.Endpoints
		return settings
	}
	if mode := rec.HostConfig.NetworkMode; !mode.IsContainer() {
		settings.Networks[string(mode)] = restingEndpoint(rec, string(mode))
	}
	return settings
}

// restingEndpoint is the endpoint of a container that does not run.
func restingEndpoint(rec *Record, name string) *network.EndpointSettings {
	asked := rec.Endpoints[name]
	if asked == nil {
		asked = &network.EndpointSettings{}
	}
	return &network.EndpointSettings{
		NetworkID: rec.NetworkIDs[name], IPAMConfig: asked.IPAMConfig, Links: asked.Links, Aliases: asked.Aliases,
		DriverOpts: asked.DriverOpts, GwPriority: asked.GwPriority, MacAddress: asked.MacAddress,
	}
}

// AskedMAC is the hardware address the container was asked to have on its main
// network; nil when none was, or when there is no such container.
func (m *Manager) AskedMAC(ref string) network.HardwareAddr {
	c, err := m.lookup(ref)
	if err != nil {
		return nil
	}
	rec := c.copy()
	if ep := rec.Endpoints[string(rec.HostConfig.NetworkMode)]; ep != nil {
		return ep.MacAddress
	}
	return nil
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
