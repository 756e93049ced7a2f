package server

import (
	"context"
	"io"
	"time"

	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	itypes "github.com/moby/moby/api/types/image"
	ntypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	vtypes "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/filter"
	"github.com/gantry-containers/gantry/internal/image"
	"github.com/gantry-containers/gantry/internal/logs"
)

// backend is whom the handlers call: the managers of an engine, or those of a
// test. What the methods do is documented with the managers.
type backend struct {
	containers containers
	images     images
	volumes    volumes
	networks   networks
	system     systemInfo
	registries registries
}

type registries interface {
	Login(ctx context.Context, cred *registry.AuthConfig) (identityToken string, err error)
	Search(ctx context.Context, term string, limit int, f filter.Args, cred *registry.AuthConfig) ([]registry.SearchResult, error)
	Inspect(ctx context.Context, name string, cred *registry.AuthConfig) (*registry.DistributionInspect, error)
}

type containers interface {
	Create(ctx context.Context, o *container.CreateOptions) (ctypes.CreateResponse, error)
	Run(ctx context.Context, o *container.CreateOptions, r *container.RunOptions) error
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o container.StopOptions) error
	Restart(ctx context.Context, ref string, o container.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Remove(ctx context.Context, ref string, o container.RemoveOptions) error
	Wait(ctx context.Context, ref string, condition ctypes.WaitCondition) (<-chan ctypes.WaitResponse, error)
	Update(ctx context.Context, ref string, config *ctypes.UpdateConfig) (ctypes.UpdateResponse, error)
	Resize(ctx context.Context, ref string, height, width uint) error
	Inspect(ctx context.Context, ref string, size bool) (*ctypes.InspectResponse, error)
	// AskedMAC is the address the container was created with, if one was asked for.
	AskedMAC(ref string) ntypes.HardwareAddr
	List(ctx context.Context, o container.ListOptions) ([]ctypes.Summary, error)
	Top(ctx context.Context, ref, psArgs string) (*ctypes.TopResponse, error)
	Stats(ctx context.Context, ref string, o container.StatsOptions, send func(*ctypes.StatsResponse) error) error
	Logs(ctx context.Context, ref string, o container.LogsOptions, send func(*logs.Message) error) error
	Tty(ref string) (bool, error)
	Attach(ctx context.Context, ref string, o container.AttachOptions, hijack container.Hijack) error
	Changes(ctx context.Context, ref string) ([]ctypes.FilesystemChange, error)
	Export(ctx context.Context, ref string, w io.Writer) error
	StatPath(ctx context.Context, ref, path string) (*ctypes.PathStat, error)
	CopyFrom(ctx context.Context, ref, path string, begin func(*ctypes.PathStat) io.Writer) error
	CopyTo(ctx context.Context, ref, path string, o container.CopyToOptions, r io.Reader) error
	ExecCreate(ctx context.Context, ref string, config *ctypes.ExecCreateRequest) (string, error)
	ExecStart(ctx context.Context, id string, o container.ExecStartOptions, hijack container.Hijack) error
	ExecInspect(ctx context.Context, id string) (*ctypes.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint) error
	Prune(ctx context.Context, f filter.Args) (*ctypes.PruneReport, error)
	Commit(ctx context.Context, ref string, o container.CommitOptions) (digest.Digest, error)
}

type images interface {
	Pull(ctx context.Context, ref string, o image.PullOptions) error
	Push(ctx context.Context, ref string, o image.PushOptions) error
	Reclaim(ctx context.Context, o image.ReclaimOptions) (*image.ReclaimReport, error)
	Diff(ctx context.Context, from, to string) (*image.Diff, error)
	Load(ctx context.Context, r io.Reader, o image.LoadOptions) error
	Save(ctx context.Context, refs []string, w io.Writer, platforms []ocispec.Platform) error
	Import(ctx context.Context, r io.Reader, o image.ImportOptions) (digest.Digest, error)
	ImportFrom(ctx context.Context, url string, o image.ImportOptions) (digest.Digest, error)
	Tag(src, repo, tag string) error
	Remove(ctx context.Context, ref string, o image.RemoveOptions) ([]itypes.DeleteResponse, error)
	List(ctx context.Context, o image.ListOptions) ([]itypes.Summary, error)
	Inspect(ctx context.Context, ref string, o image.InspectOptions) (*itypes.InspectResponse, error)
	Parent(id string) string
	History(ctx context.Context, ref string, platform *ocispec.Platform) ([]itypes.HistoryResponseItem, error)
	Prune(ctx context.Context, f filter.Args) (*itypes.PruneReport, error)
}

type volumes interface {
	Create(ctx context.Context, o *vtypes.CreateRequest) (*vtypes.Volume, error)
	List(ctx context.Context, f filter.Args) (*vtypes.ListResponse, error)
	Inspect(ctx context.Context, name string) (*vtypes.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, f filter.Args) (*vtypes.PruneReport, error)
}

type networks interface {
	List(ctx context.Context, f filter.Args) ([]ntypes.Summary, error)
	Inspect(ctx context.Context, ref string) (*ntypes.Inspect, error)
	Prune(ctx context.Context, f filter.Args) (*ntypes.PruneReport, error)
}

type systemInfo interface {
	Info(ctx context.Context) (*system.Info, error)
	Neighbours() []string // that are asked for images
	Version(ctx context.Context) (*system.VersionResponse, error)
	DiskUsage(ctx context.Context, containers, images, volumes bool) (*engine.Usage, error)
	Subscribe(since time.Time, f filter.Args) (past []events.Message, next <-chan events.Message, end func())
}
