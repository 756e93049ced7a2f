package engine

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/image"
	inetwork "github.com/gantry-containers/gantry/internal/network"
	"github.com/gantry-containers/gantry/internal/volume"
)

// The types here let the container manager use its neighbours without knowing
// them.

type images struct{ *image.Manager }

func (i images) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*container.Image, error) {
	found, err := i.Manager.Resolve(ctx, ref, platform)
	if errdefs.IsNotFound(err) {
		// The image that comes with the engine needs no registry.
		if loaded, lerr := i.Manager.LoadEmbedded(ctx, ref); lerr != nil {
			return nil, lerr
		} else if loaded {
			found, err = i.Manager.Resolve(ctx, ref, platform)
		}
	}
	if err != nil {
		return nil, err
	}
	return &container.Image{ID: found.ID, Config: found.Config.Config, Platform: found.Config.Platform, Layers: found.Layers}, nil
}

func (i images) Matches(_ context.Context, ref string) (digest.Digest, error) {
	return i.Manager.ID(ref)
}

func (i images) Commit(ctx context.Context, r *container.CommitRequest) (digest.Digest, string, error) {
	return i.Manager.Commit(ctx, image.CommitOptions{
		Parent: r.Parent, Config: r.Config, Container: r.Container, Changes: r.Changes,
		Repo: r.Repo, Tag: r.Tag, Author: r.Author, Comment: r.Comment, Diff: r.Diff,
	})
}

type networks struct{ *inetwork.Manager }

func (n networks) Connect(ctx context.Context, r *container.NetworkRequest) (*container.Sandbox, error) {
	sandbox, err := n.Manager.Connect(ctx, &inetwork.ConnectRequest{
		ContainerID: r.ContainerID,
		Name:        r.Name,
		Hostname:    r.Hostname,
		Mode:        r.Mode,
		Exposed:     r.Exposed,
		Bindings:    r.Bindings,
		PublishAll:  r.PublishAll,
		Endpoint:    endpointFor(r),
	})
	if err != nil {
		return nil, err
	}
	return &container.Sandbox{NetNS: sandbox.NetNS, Network: container.Network{
		SandboxID: sandbox.SandboxID, Endpoints: sandbox.Endpoints, Ports: sandbox.Ports,
	}}, nil
}

func (n networks) Connected(containerID string) *container.Network {
	sandbox, ok := n.Manager.Sandbox(containerID)
	if !ok {
		return nil
	}
	return &container.Network{SandboxID: sandbox.SandboxID, Endpoints: sandbox.Endpoints, Ports: sandbox.Ports}
}

// endpointFor finds the settings for the network of the mode, which clients
// call by both of its names.
func endpointFor(r *container.NetworkRequest) *network.EndpointSettings {
	for _, name := range []string{string(r.Mode), "default", "bridge"} {
		if settings := r.Endpoints[name]; settings != nil {
			return settings
		}
	}
	return nil
}

type volumes struct{ *volume.Manager }

func (v volumes) Use(ctx context.Context, spec mount.Mount, containerID string) (*container.Volume, error) {
	used, err := v.Manager.Use(ctx, spec, containerID)
	if err != nil {
		return nil, err
	}
	return &container.Volume{Name: used.Name, Driver: volume.Driver, Source: used.Source, Empty: used.Empty}, nil
}

func (e *Engine) imageUsers(id digest.Digest) []string {
	users, _ := e.Containers.UsersOf(id)
	return users
}

func (e *Engine) imageRunners(id digest.Digest) []string {
	_, running := e.Containers.UsersOf(id)
	return running
}

func (e *Engine) layersInUse() []digest.Digest { return e.Containers.Layers() }
