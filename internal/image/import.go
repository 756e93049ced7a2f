package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
)

// ImportOptions says what becomes of a root filesystem.
type ImportOptions struct {
	Repo, Tag string // the image's name; none when Repo is empty
	Message   string // of its history
	Changes   []string
	Platform  *ocispec.Platform // nil is the host's
}

// Import makes an image of one layer from a tar archive of a root filesystem,
// plain or compressed. It fails with ErrInvalidArgument for a bad archive,
// name or change.
func (m *Manager) Import(ctx context.Context, r io.Reader, opts ImportOptions) (digest.Digest, error) {
	config, named, err := opts.prepare()
	if err != nil {
		return "", err
	}
	in := m.begin()
	defer in.end()
	end := &tarEnd{}
	blob, diffID, err := m.importBlob(ctx, in, r, end)
	if err != nil {
		return "", err
	}
	l, err := m.layer(ctx, in, diffID, blob, m.fromStore, func(step) {})
	if err != nil {
		return "", err
	}
	if err := end.check(); err != nil {
		return "", err
	}
	now := time.Now().UTC()
	config.Created = &now
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	config.History = []ocispec.History{{Created: &now, Comment: opts.Message}}
	e, err := m.create(ctx, in, config, []layerRecord{l}, "")
	if err != nil {
		return "", err
	}
	if named != nil {
		if _, err := m.point(named, e, in); err != nil {
			return "", err
		}
		m.publish(events.ActionTag, e, e.id.String(), reference.FamiliarString(named))
	}
	m.publish(events.ActionImport, e, e.id.String(), e.id.String())
	return e.id, nil
}

// ImportFrom imports from a URL, as "docker import http://…" asks the engine to.
func (m *Manager) ImportFrom(ctx context.Context, source string, opts ImportOptions) (digest.Digest, error) {
	u, err := url.Parse(source)
	if err != nil {
		return "", errs.InvalidArgument("cannot import from %q: %w", source, err)
	}
	if u.Scheme == "" {
		u, err = url.Parse("http://" + source)
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", errs.InvalidArgument("cannot import from %q: it is no http or https address", source)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", errs.InvalidArgument("cannot import from %q: %w", source, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", errs.Unavailable("cannot import: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", errs.InvalidArgument("cannot import: %s answered %s", u.Host, resp.Status)
	}
	return m.Import(ctx, resp.Body, opts)
}

// prepare checks what was asked for before anything is read.
func (o *ImportOptions) prepare() (*dockerspec.DockerOCIImage, reference.Named, error) {
	platform := HostPlatform()
	if o.Platform != nil {
		platform = normalize(*o.Platform)
	}
	if platform.OS != "linux" {
		return nil, nil, errs.InvalidArgument("cannot use an image for operating system %q on linux", platform.OS)
	}
	config := &dockerspec.DockerOCIImage{}
	config.Platform = platform
	if err := ApplyChanges(&config.Config, o.Changes); err != nil {
		return nil, nil, err
	}
	if o.Repo == "" {
		return config, nil, nil
	}
	named, err := parseTag(o.Repo, o.Tag)
	return config, named, err
}

// importBlob stores the archive, as it came if its compression is one that
// layers may have, and finds out the digest of what is in it. end gets to see
// the archive itself.
func (m *Manager) importBlob(ctx context.Context, in *ingest, r io.Reader, end *tarEnd) (ocispec.Descriptor, digest.Digest, error) {
	var none ocispec.Descriptor
	w, err := m.opts.Content.NewWriter(ctx, "", -1)
	if err != nil {
		return none, "", err
	}
	defer w.Close()
	raw := &switchable{r: r, w: w}
	plain, compression, err := layer.Decompress(raw)
	if err != nil {
		return none, "", fmt.Errorf("cannot import: %w", err)
	}
	defer plain.Close()
	mediaType := ocispec.MediaTypeImageLayer
	diffID := digest.Canonical.Digester()
	sink := io.MultiWriter(diffID.Hash(), end)
	switch compression {
	case layer.Gzip:
		mediaType = ocispec.MediaTypeImageLayerGzip
	case layer.Zstd:
		mediaType = ocispec.MediaTypeImageLayerZstd
	case layer.None:
	default: // what no layer may be compressed with
		w.Close()
		if w, err = m.opts.Content.NewWriter(ctx, "", -1); err != nil {
			return none, "", err
		}
		defer w.Close()
		raw.w, sink = nil, io.MultiWriter(sink, w)
	}
	if _, err := io.Copy(sink, plain); err != nil {
		return none, "", errs.InvalidArgument("cannot import: %w", err)
	}
	if _, err := io.Copy(io.Discard, raw); err != nil { // what follows the end
		return none, "", err
	}
	dgst, err := in.commit(w)
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: w.Size()}, diffID.Digest(), err
}

// tarEnd remembers the last block of what is written to it.
type tarEnd struct {
	block [512]byte
	size  int64
}

func (e *tarEnd) Write(p []byte) (int, error) {
	n := len(p)
	e.size += int64(n)
	if n > len(e.block) {
		p = p[n-len(e.block):]
	}
	copy(e.block[:], e.block[len(p):])
	copy(e.block[len(e.block)-len(p):], p)
	return n, nil
}

// check refuses an archive that was cut off between two entries. Every archive
// ends in blocks of zeros; Docker takes one that does not for whole, and makes
// an image with half of the files.
func (e *tarEnd) check() error {
	if e.size > 0 && e.block != [512]byte{} {
		return errs.InvalidArgument("cannot import: the archive ends in the middle: the blocks of zeros that end every archive are missing")
	}
	return nil
}

// switchable copies what is read to w, for as long as it has one.
type switchable struct {
	r io.Reader
	w io.Writer
}

func (s *switchable) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if n > 0 && s.w != nil {
		if _, werr := s.w.Write(p[:n]); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// create records an image made here: of a configuration, and layers that are
// there and pinned.
func (m *Manager) create(ctx context.Context, in *ingest, config *dockerspec.DockerOCIImage, layers []layerRecord, parent digest.Digest) (*entry, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	id, err := in.putBytes(ctx, data)
	if err != nil {
		return nil, err
	}
	manifest, err := m.putNewManifest(ctx, in, id, int64(len(data)), layers)
	if err != nil {
		return nil, err
	}
	e, _, err := m.register(in, id, record{Manifest: manifest, Layers: layers, Parent: parent, Made: true})
	return e, err
}

// putNewManifest stores a manifest of a configuration, whose size is in bytes,
// and of layers.
func (m *Manager) putNewManifest(ctx context.Context, in *ingest, config digest.Digest, size int64, layers []layerRecord) (ocispec.Descriptor, error) {
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config, Size: size},
		Layers:    []ocispec.Descriptor{},
	}
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{
			MediaType: ociLayerType(l.Blob.MediaType), Digest: l.Blob.Digest, Size: l.Blob.Size})
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	dgst, err := in.putBytes(ctx, data)
	return ocispec.Descriptor{MediaType: manifest.MediaType, Digest: dgst, Size: int64(len(data))}, err
}
