package image

import (
	"context"
	"io"
	"maps"
	"runtime"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/state"
)

// compress makes the layers of an image small that was made here: commit,
// import and the archives of docker save leave them as they are, because most
// are never sent anywhere. The image keeps its ID and gets another manifest; the
// blobs it had before go. It tells whether there was anything to do.
func (p *pusher) compress(ctx context.Context, id digest.Digest) (bool, error) {
	e, err := p.m.hold(p.in, id)
	if err != nil {
		return false, err
	}
	if !e.Made || !slices.ContainsFunc(e.Layers, isPlain) {
		return false, nil
	}
	layers := slices.Clone(e.Layers)
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(runtime.GOMAXPROCS(0))
	for i := range layers {
		if !isPlain(layers[i]) {
			continue
		}
		eg.Go(func() (err error) {
			layers[i].Blob, err = p.compressed(gctx, layers[i])
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return false, err
	}
	return true, p.m.replaceLayers(ctx, p.in, e, layers)
}

func isPlain(l layerRecord) bool {
	return ociLayerType(l.Blob.MediaType) == ocispec.MediaTypeImageLayer
}

// compressed is a blob of a layer that is compressed: one another image has
// already, or a new one.
func (p *pusher) compressed(ctx context.Context, l layerRecord) (ocispec.Descriptor, error) {
	_, blobs := p.m.layerFacts(l.DiffID)
	for _, blob := range blobs {
		if ociLayerType(blob.MediaType) == ocispec.MediaTypeImageLayerGzip && p.in.adopt(blob.Digest) {
			return blob, nil
		}
	}
	return p.gzip(ctx, l)
}

// gzip writes the layer's blob anew. The same layer always gives the same bytes.
func (p *pusher) gzip(ctx context.Context, l layerRecord) (blob ocispec.Descriptor, err error) {
	plain, err := p.m.opts.Content.Open(l.Blob.Digest)
	if err != nil {
		return blob, err
	}
	defer plain.Close()
	w, err := p.m.opts.Content.NewWriter(ctx, "", -1)
	if err != nil {
		return blob, err
	}
	defer w.Close()
	z := gzip.NewWriter(w)
	defer z.Close() // its error was seen before, where it matters
	r := &meter{r: plain, report: p.out.layer(short(l.DiffID)), step: step{stepCompressing, 0, l.Blob.Size}}
	if _, err := io.Copy(z, r); err != nil {
		return blob, err
	}
	if err := z.Close(); err != nil {
		return blob, err
	}
	dgst, err := p.in.commit(w)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: dgst, Size: w.Size()}, err
}

// replaceLayers gives an image that was made here other blobs of the same
// layers, and with them another manifest. Names that stood for the old one
// stand for the new one. The old blobs are pinned by the ingest, and go with it.
func (m *Manager) replaceLayers(ctx context.Context, in *ingest, e *entry, layers []layerRecord) error {
	config, err := m.opts.Content.Stat(e.id)
	if err != nil {
		return err
	}
	manifest, err := m.putNewManifest(ctx, in, e.id, config.Size, layers)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.byID[e.id]
	if now == nil {
		return errs.NotFound("No such image: %s", e.id)
	}
	if now.Manifest.Digest != e.Manifest.Digest {
		return nil // somebody else did it
	}
	rec := now.record
	rec.Manifest, rec.Layers = manifest, layers
	// At once: a name that stood for the old manifest would keep it for good.
	changes, refs := []state.Change{m.images.Change(e.id.String(), &rec)}, map[string]refRecord{}
	for key, ref := range m.byRef {
		if !isDigestKey(key) && ref.Target.Digest == e.Manifest.Digest {
			ref.Target = manifest
			refs[key] = ref
			changes = append(changes, m.refs.Change(key, &ref))
		}
	}
	if err := m.opts.DB.PutAll(changes...); err != nil {
		return err
	}
	m.byID[e.id] = m.newEntry(e.id, rec)
	maps.Copy(m.byRef, refs)
	return nil
}
