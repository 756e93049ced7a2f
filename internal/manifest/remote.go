package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/cli/config"
	"github.com/gantry-containers/gantry/internal/registry"
)

// remote asks registries with the logins of the command line.
type remote struct {
	logins   *config.File
	insecure bool
	clients  map[string]*registry.Client // by registry
}

// repository is where a reference is kept.
func (r *remote) repository(ctx context.Context, ref reference.Named) (*registry.Repository, error) {
	domain := reference.Domain(ref)
	c := r.clients[domain]
	if c == nil {
		o := registry.Options{UserAgent: "gantry-manifest"}
		if r.insecure {
			o.Insecure = []string{domain}
		}
		if err := o.Check(); err != nil {
			return nil, err
		}
		c = registry.New(o)
		r.clients[domain] = c
	}
	login, ok, err := r.logins.Credentials(config.Key(domain))
	if err != nil {
		return nil, err
	}
	var auth *registry.AuthConfig
	if ok {
		auth = &registry.AuthConfig{
			Username: login.Username, Password: login.Password, IdentityToken: login.IdentityToken,
			RegistryToken: login.RegistryToken, ServerAddress: login.ServerAddress,
		}
	}
	return c.Repository(ctx, ref, auth)
}

// fetch reads the manifest or list that a reference stands for.
func (r *remote) fetch(ctx context.Context, ref reference.Named) (*registry.Repository, ocispec.Descriptor, []byte, error) {
	repo, err := r.repository(ctx, ref)
	if err != nil {
		return nil, ocispec.Descriptor{}, nil, err
	}
	word := ""
	switch ref := ref.(type) {
	case reference.Canonical: // also one with a tag
		word = ref.Digest().String()
	case reference.Tagged:
		word = ref.Tag()
	}
	desc, body, err := repo.Manifest(ctx, word)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, desc, nil, fmt.Errorf("no such manifest: %s", ref)
	}
	return repo, desc, body, err
}

// image reads a manifest of one platform.
func (r *remote) image(ctx context.Context, ref reference.Named) (*image, error) {
	repo, desc, body, err := r.fetch(ctx, ref)
	if err != nil {
		return nil, err
	}
	return withPlatform(ctx, repo, ref, desc, body)
}

// images reads what a reference stands for: one image, or all of a list.
func (r *remote) images(ctx context.Context, ref reference.Named) (images []*image, isList bool, err error) {
	repo, desc, body, err := r.fetch(ctx, ref)
	if err != nil {
		return nil, false, err
	}
	if desc.MediaType != registry.MediaTypeDockerList && desc.MediaType != ocispec.MediaTypeImageIndex {
		i, err := withPlatform(ctx, repo, ref, desc, body)
		return []*image{i}, false, err
	}
	var l ocispec.Index
	if err := json.Unmarshal(body, &l); err != nil {
		return nil, true, fmt.Errorf("cannot read the manifest list %s: %w", ref, err)
	}
	images = []*image{}
	for _, m := range l.Manifests {
		desc, body, err := repo.Manifest(ctx, m.Digest.String())
		if err != nil {
			return nil, true, err
		}
		name, err := reference.WithDigest(ref, m.Digest)
		if err != nil {
			return nil, true, err
		}
		i, err := newImage(name, desc, body)
		if err != nil {
			return nil, true, err
		}
		if i.Descriptor.Platform = m.Platform; m.Platform == nil {
			i.Descriptor.Platform = &ocispec.Platform{}
		}
		images = append(images, i)
	}
	return images, true, nil
}

// withPlatform completes the descriptor with what the image's configuration
// says about its platform.
func withPlatform(ctx context.Context, repo *registry.Repository, ref reference.Named, desc ocispec.Descriptor, body []byte) (*image, error) {
	i, err := newImage(ref, desc, body)
	if err != nil {
		return nil, err
	}
	blobs, err := i.blobs()
	if err != nil {
		return nil, err
	}
	text, err := readBlob(ctx, repo, blobs[0])
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration of %s: %w", ref, err)
	}
	p := &ocispec.Platform{}
	// An artifact's configuration need not be an image's: it has no platform.
	if json.Unmarshal(text, p) != nil {
		p = &ocispec.Platform{}
	}
	i.Descriptor.Platform = p
	return i, nil
}

// maxConfig bounds a configuration that is read whole.
const maxConfig = registry.MaxManifest

func readBlob(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxConfig {
		return nil, fmt.Errorf("it has %d bytes", desc.Size)
	}
	body, err := repo.Blob(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxConfig))
	if err != nil {
		return nil, err
	}
	if digest.Digest(desc.Digest).Algorithm().FromBytes(text) != desc.Digest {
		return nil, fmt.Errorf("image config verification failed for digest %s", desc.Digest)
	}
	return text, nil
}

// push brings the images into the repository of the list, and then the list.
// tell gets a line for each thing done.
func (r *remote) push(ctx context.Context, target reference.Named, images []*image, tell func(string)) error {
	for _, i := range images {
		if p := i.Descriptor.Platform; p == nil || p.Architecture == "" || p.OS == "" {
			return fmt.Errorf("manifest %s must have an OS and Architecture to be pushed to a registry", i.Ref)
		}
	}
	l, err := newList(target, images)
	if err != nil {
		return err
	}
	to, err := r.repository(ctx, target)
	if err != nil {
		return err
	}
	for _, i := range images {
		if err := r.bring(ctx, to, target, i, tell); err != nil {
			return err
		}
	}
	body, err := l.bytes()
	if err != nil {
		return err
	}
	dgst, err := to.PushManifest(ctx, tagOf(target), l.MediaType, body)
	if err != nil {
		return fmt.Errorf("failed to put manifest %s: %w", target, err)
	}
	tell(dgst.String())
	return nil
}

// tagOf is what a list is pushed as.
func tagOf(ref reference.Named) string {
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}

// bring copies an image from another repository of the same registry, which
// mounts its blobs, if it can, and else gets them sent.
func (r *remote) bring(ctx context.Context, to *registry.Repository, target reference.Named, i *image, tell func(string)) error {
	source, err := i.name()
	if err != nil || reference.Path(source) == reference.Path(target) {
		return err
	}
	from, err := r.repository(ctx, source)
	if err != nil {
		return err
	}
	blobs, err := i.blobs()
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if len(b.URLs) > 0 {
			continue // not the registry's to have
		}
		open := func(ctx context.Context, offset int64) (io.ReadCloser, error) { return from.Blob(ctx, b, offset) }
		if _, err := to.PushBlob(ctx, b, open, registry.PushOptions{MountFrom: []string{reference.Path(source)}}); err != nil {
			return fmt.Errorf("error mounting %s to %s: %w", b.Digest, target, err)
		}
	}
	body, err := i.payload()
	if err != nil {
		return err
	}
	ref, err := reference.WithDigest(reference.TrimNamed(target), i.Descriptor.Digest)
	if err != nil {
		return err
	}
	dgst, err := to.PushManifest(ctx, i.Descriptor.Digest.String(), i.Descriptor.MediaType, body)
	if err != nil {
		return fmt.Errorf("failed to put manifest %s: %w", ref, err)
	}
	tell(fmt.Sprintf("Pushed ref %s with digest: %s", ref, dgst))
	return nil
}
