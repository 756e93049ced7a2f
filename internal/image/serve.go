package image

import (
	"context"
	"io"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
)

// What is here can be served to others: the methods of this file are all that
// takes.

// Names lists the tags, in full and sorted: "docker.io/library/alpine:3".
func (m *Manager) Names() []string {
	names := []string{}
	m.mu.RLock()
	for key := range m.byRef {
		if !isDigestKey(key) {
			names = append(names, key)
		}
	}
	m.mu.RUnlock()
	slices.Sort(names)
	return names
}

// Lookup returns a manifest or an index of a repository by its tag or its
// digest. What cannot be served byte for byte, as a blob it names is not here,
// is not found; an index is whatever is here of what it lists. It fails with
// ErrNotFound, and with ErrInvalidArgument for what is no reference.
func (m *Manager) Lookup(ctx context.Context, repository, ref string) (ocispec.Descriptor, []byte, error) {
	var none ocispec.Descriptor
	named, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return none, nil, badReference(err)
	}
	notFound := errs.NotFound("no manifest %s of %s is here", ref, repository)
	desc, k := m.served(reference.TrimNamed(named).Name(), ref)
	if desc.Digest == "" {
		return none, nil, notFound
	}
	data, err := m.opts.Content.ReadAll(desc.Digest, registry.MaxManifest)
	if err != nil {
		return none, nil, err
	}
	if !isIndex(desc.MediaType) {
		for _, blob := range blobsOf(data) {
			if !m.stored(blob.Digest) && !isForeignLayer(blob.MediaType) {
				return none, nil, notFound
			}
		}
	}
	if k != nil && desc.MediaType == "" {
		desc.MediaType, _ = kindOf("", data)
	}
	return bare(desc), data, ctx.Err()
}

// served finds what a repository has under a tag or a digest.
func (m *Manager) served(repository, ref string) (ocispec.Descriptor, *keptManifest) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	dgst, err := digest.Parse(ref)
	if err != nil {
		return m.byRef[repository+":"+ref].Target, nil
	}
	for key, record := range m.byRef {
		if repositoryOf(key) != repository {
			continue
		}
		if record.Target.Digest == dgst {
			return record.Target, nil
		}
		if k := m.byIndex[record.Target.Digest].find(dgst); k != nil {
			return k.Descriptor, k
		}
	}
	return ocispec.Descriptor{}, nil
}

// Open opens a blob that an image has, and tells its size in bytes. The caller
// closes it; it stays readable when the image is removed meanwhile. It fails
// with ErrNotFound.
func (m *Manager) Open(ctx context.Context, dgst digest.Digest) (io.ReadSeekCloser, int64, error) {
	if blobs, _ := m.named(); !blobs[dgst] {
		return nil, 0, errs.NotFound("no image here has blob %s", dgst)
	}
	f, err := m.opts.Content.Open(dgst)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), ctx.Err()
}
