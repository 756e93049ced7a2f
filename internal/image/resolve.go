package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Image is an image as a container is made from it. It is the caller's, and
// describes the image at the time it was asked for.
type Image struct {
	ID       digest.Digest
	Manifest digest.Digest
	Config   dockerspec.DockerOCIImage
	Layers   []digest.Digest // diff IDs, bottom first
}

// Resolve finds an image by name, name:tag, name@digest, ID or the beginning of
// one, and sees to it that its layers are unpacked. With a platform the image
// must be of that, or of one that runs on it. It fails with ErrNotFound, and
// with ErrInvalidArgument for what is no reference.
func (m *Manager) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*Image, error) {
	e, config, err := m.resolve(ref, platform)
	if err != nil {
		return nil, err
	}
	if e, err = m.unpacked(ctx, e); err != nil {
		return nil, err
	}
	m.touch(e.id)
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &Image{
		ID:       e.id,
		Manifest: e.Manifest.Digest,
		Config:   *config,
		Layers:   e.diffIDs(),
	}, nil
}

// ID finds an image as Resolve does, and does nothing else.
func (m *Manager) ID(ref string) (digest.Digest, error) {
	e, err := m.find(ref)
	if err != nil {
		return "", err
	}
	return e.id, nil
}

// unpacked is the image with all its layers unpacked.
func (m *Manager) unpacked(ctx context.Context, e *entry) (*entry, error) {
	if !e.packed() {
		return e, nil
	}
	in := m.begin()
	defer in.end()
	m.mu.RLock()
	now := m.byID[e.id]
	if now != nil {
		in.pinEntry(now)
	}
	m.mu.RUnlock()
	if now == nil {
		return nil, errs.NotFound("No such image: %s", e.id)
	}
	blobs := make([]ocispec.Descriptor, len(now.Layers))
	for i, l := range now.Layers {
		blobs[i] = l.Blob
	}
	src := source{open: m.fromStore, parallel: 2, watch: func(ocispec.Descriptor) func(step) { return func(step) {} }}
	layers, err := m.takeLayers(ctx, in, src, now.diffIDs(), blobs)
	if err != nil {
		return nil, fmt.Errorf("cannot unpack image %s: %w", short(e.id), err)
	}
	e, _, err = m.register(in, e.id, record{Manifest: now.Manifest, Layers: layers, Parent: now.Parent})
	return e, err
}

func (m *Manager) resolve(ref string, platform *ocispec.Platform) (*entry, *dockerspec.DockerOCIImage, error) {
	e, desc, err := m.findTarget(ref)
	if err != nil {
		return nil, nil, err
	}
	if platform != nil {
		e = m.ofPlatform(e, desc, *platform)
	}
	config, err := e.config()
	if err != nil {
		return nil, nil, err
	}
	if platform != nil {
		if have := platformOf(config); rank(*platform, have) < 0 {
			return nil, nil, errs.NotFound(
				"image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
				ref, FormatPlatform(have), FormatPlatform(*platform))
		}
	}
	return e, config, nil
}

// ofPlatform is the image kept of the target that suits the platform best; e
// when there is none better.
func (m *Manager) ofPlatform(e *entry, desc ocispec.Descriptor, want ocispec.Platform) *entry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if rec := m.byIndex[desc.Digest]; rec != nil {
		if better := m.byID[rec.choose(want)]; better != nil {
			return better
		}
	}
	return e
}

func (m *Manager) find(ref string) (*entry, error) {
	e, _, err := m.findTarget(ref)
	return e, err
}

// findTarget looks a reference up as Docker does, a name first, then an ID, and
// tells what it stands for: of an ID that is the image's manifest.
func (m *Manager) findTarget(ref string) (*entry, ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	parsed, err := m.parsed.parse(ref)
	if err != nil {
		return nil, none, badReference(err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	named, isName := parsed.(reference.Named)
	if !isName {
		if digested, ok := parsed.(reference.Digested); ok {
			if e := m.byID[digested.Digest()]; e != nil {
				return e, e.Manifest, nil
			}
		}
		return nil, none, errs.NotFound("No such image: %s", parsed.String())
	}
	if record, ok := m.byRef[refKey(named)]; ok {
		return m.byID[record.ID], record.Target, nil
	}
	e, err := m.findPrefix(ref)
	if err != nil {
		return nil, none, err
	}
	if e == nil {
		return nil, none, errs.NotFound("No such image: %s", reference.FamiliarString(named))
	}
	return e, e.Manifest, nil
}

// findPrefix takes the reference for the beginning of an ID. The caller holds mu.
func (m *Manager) findPrefix(ref string) (found *entry, err error) {
	hex := strings.TrimPrefix(ref, "sha256:")
	if hex == "" || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, nil
	}
	for id, e := range m.byID {
		if !strings.HasPrefix(id.Encoded(), hex) {
			continue
		}
		if found != nil {
			return nil, errs.InvalidArgument("image ID prefix %q is ambiguous: more than one image has an ID that begins so", ref)
		}
		found = e
	}
	return found, nil
}

// isIDPrefix tells whether the image was named by its ID or a part of that.
func isIDPrefix(id digest.Digest, ref string) bool {
	return strings.HasPrefix(id.String(), ref) || strings.HasPrefix(id.Encoded(), ref)
}
