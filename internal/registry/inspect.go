package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// maxConfig bounds the configuration of an image, in bytes.
const maxConfig = 8 << 20

// Inspect tells what a name stands for at its registry, without fetching it:
// the descriptor, and the platforms there are.
func (c *Client) Inspect(ctx context.Context, name string, cred *AuthConfig) (*registrytypes.DistributionInspect, error) {
	any, err := reference.ParseAnyReference(name)
	if err != nil {
		return nil, errs.InvalidArgument("%w", err)
	}
	named, ok := any.(reference.Named)
	if !ok {
		return nil, errs.InvalidArgument("no manifest found for full image ID")
	}
	repo, err := c.Repository(ctx, named, cred)
	if err != nil {
		return nil, err
	}
	ref := ""
	if digested, ok := named.(reference.Digested); ok {
		ref = digested.Digest().String()
	} else {
		ref = reference.TagNameOnly(named).(reference.Tagged).Tag()
	}
	desc, data, err := repo.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	if desc.MediaType == MediaTypeDockerSchema1 || desc.MediaType == MediaTypeDockerSigned1 {
		return nil, errs.InvalidArgument("the image is in Docker's manifest schema 1, which is no longer supported: its author has to push it again in the OCI format")
	}
	platforms, err := repo.platforms(ctx, data)
	return &registrytypes.DistributionInspect{Descriptor: desc, Platforms: platforms}, err
}

// platforms lists those of an index, or the one of an image.
func (r *Repository) platforms(ctx context.Context, data []byte) ([]ocispec.Platform, error) {
	var said struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    *ocispec.Descriptor  `json:"config"`
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, errs.InvalidArgument("registry %s sent a manifest that cannot be read: %w", r.host, err)
	}
	var list []ocispec.Platform
	for _, m := range said.Manifests {
		if m.Platform != nil {
			list = append(list, *m.Platform)
		}
	}
	if said.Config == nil || said.Config.Digest.Validate() != nil {
		return list, nil
	}
	platform, err := r.configPlatform(ctx, *said.Config)
	if platform != nil {
		list = append(list, *platform)
	}
	return list, err
}

// configPlatform reads the platform out of an image's configuration; nil when
// there is none, as with what is no image.
func (r *Repository) configPlatform(ctx context.Context, config ocispec.Descriptor) (*ocispec.Platform, error) {
	if config.Size > maxConfig {
		return nil, nil
	}
	rc, err := r.Blob(ctx, config, 0)
	var refused *ResponseError
	if errors.As(err, &refused) {
		return nil, nil // the manifest is what was asked for
	}
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		return nil, err
	}
	var p ocispec.Platform
	if config.Digest.Algorithm().FromBytes(data) != config.Digest || json.Unmarshal(data, &p) != nil || p.OS == "" && p.Architecture == "" {
		return nil, nil
	}
	return &p, nil
}
