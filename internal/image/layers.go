package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
)

// opener opens a blob where it comes from, from an offset on. The reader is
// checked for the descriptor's size and digest by who reads it.
type opener func(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)

// The steps of a layer as Docker words them.
const (
	stepWaiting     = "Pulling fs layer"
	stepDownloading = "Downloading"
	stepVerifying   = "Verifying Checksum"
	stepDownloaded  = "Download complete"
	stepExtracting  = "Extracting"
	stepPulled      = "Pull complete"
	stepExists      = "Already exists"
)

// known returns the layer when neither its tree nor its blob needs fetching.
// Any blob will do that unpacks to the tree.
func (m *Manager) known(in *ingest, diffID digest.Digest, desc ocispec.Descriptor) (layerRecord, bool) {
	if !in.adoptLayer(diffID) {
		return layerRecord{}, false
	}
	size, blobs := m.layerFacts(diffID)
	if size < 0 {
		// A tree no image names: one that a container stands on, or that a
		// crash left. The blob it came from is not known to be right for it.
		return layerRecord{}, false
	}
	for _, blob := range append([]ocispec.Descriptor{desc}, blobs...) {
		if in.adopt(blob.Digest) {
			return layerRecord{DiffID: diffID, Size: size, Blob: blob}, true
		}
	}
	return layerRecord{}, false
}

// layerFacts finds a layer in the images: its unpacked size, -1 when no image
// has it, and the blobs it came from.
func (m *Manager) layerFacts(diffID digest.Digest) (size int64, blobs []ocispec.Descriptor) {
	size = -1
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, e := range m.byID {
		for _, l := range e.Layers {
			if l.DiffID == diffID && !l.Packed {
				size = l.Size
				blobs = append(blobs, l.Blob)
			}
		}
	}
	return size, blobs
}

// layer makes sure of a layer: its tree in the snapshotter, its blob in the
// store. Where the blob has to be fetched it is verified, kept, decompressed
// and unpacked as one stream.
func (m *Manager) layer(ctx context.Context, in *ingest, diffID digest.Digest, desc ocispec.Descriptor, open opener, watch func(step)) (layerRecord, error) {
	if l, ok := m.known(in, diffID, desc); ok {
		watch(step{status: stepExists})
		return l, nil
	}
	return m.layers.do(ctx, in, diffID, watch, func(ctx context.Context, in *ingest, report func(step)) (layerRecord, error) {
		if err := m.slots.take(ctx); err != nil {
			return layerRecord{}, err
		}
		defer m.slots.giveBack()
		if l, ok := m.known(in, diffID, desc); ok { // since we looked
			report(step{status: stepExists})
			return l, nil
		}
		size, err := m.fetch(ctx, in, diffID, desc, open, report)
		if err != nil {
			return layerRecord{}, err
		}
		report(step{status: stepPulled})
		return layerRecord{DiffID: diffID, Size: size, Blob: bare(desc)}, nil
	})
}

// packedLayer makes sure of a layer's blob only.
func (m *Manager) packedLayer(ctx context.Context, in *ingest, diffID digest.Digest, desc ocispec.Descriptor, open opener, watch func(step)) (layerRecord, error) {
	_, err := m.blob(ctx, in, desc, open, watch)
	return layerRecord{DiffID: diffID, Size: desc.Size, Blob: bare(desc), Packed: true}, err
}

// blob makes sure of a blob in the store.
func (m *Manager) blob(ctx context.Context, in *ingest, desc ocispec.Descriptor, open opener, watch func(step)) (layerRecord, error) {
	if in.adopt(desc.Digest) {
		watch(step{status: stepExists})
		return layerRecord{Blob: desc}, nil
	}
	return m.blobs.do(ctx, in, desc.Digest, watch, func(ctx context.Context, in *ingest, report func(step)) (layerRecord, error) {
		if err := m.slots.take(ctx); err != nil {
			return layerRecord{}, err
		}
		defer m.slots.giveBack()
		result := layerRecord{Blob: desc}
		if in.adopt(desc.Digest) { // since we looked
			report(step{status: stepExists})
			return result, nil
		}
		return result, m.download(ctx, in, desc, open, report, func(r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
	})
}

// fromStore opens a blob that is here.
func (m *Manager) fromStore(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	f, err := m.opts.Content.Open(desc.Digest)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fetch unpacks the layer from its blob, which it brings in when it is not here.
func (m *Manager) fetch(ctx context.Context, in *ingest, diffID digest.Digest, desc ocispec.Descriptor, open opener, report func(step)) (size int64, err error) {
	unpack := func(r io.Reader) (err error) {
		size, err = m.unpack(ctx, diffID, r)
		return err
	}
	if in.adopt(desc.Digest) {
		err = m.readStored(ctx, desc, report, unpack)
	} else {
		err = m.download(ctx, in, desc, open, report, unpack)
	}
	if err == nil {
		report(step{stepExtracting, desc.Size, desc.Size})
	}
	return size, err
}

// readStored has a blob of the store used.
func (m *Manager) readStored(ctx context.Context, desc ocispec.Descriptor, report func(step), use func(io.Reader) error) error {
	f, err := m.fromStore(ctx, desc, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	ahead := newReadahead(&meter{r: f, report: report, step: step{stepExtracting, 0, desc.Size}})
	defer ahead.Close() // before f, which its goroutine reads
	return use(ahead)
}

// unpack makes a layer's tree of its blob.
func (m *Manager) unpack(ctx context.Context, diffID digest.Digest, blob io.Reader) (int64, error) {
	tar, _, err := layer.Decompress(blob)
	if err != nil {
		return 0, damaged(fmt.Errorf("cannot unpack layer %s: %w", diffID, err))
	}
	defer tar.Close()
	size, err := m.opts.Snapshots.Unpack(ctx, diffID, tar)
	return size, damaged(err)
}

// damaged gives an error its class. What neither the system nor a registry nor
// the end of the request is to blame for is wrong with the data: decompressors
// have no type for it.
func damaged(err error) error {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrUnavailable,
		errdefs.ErrUnauthenticated, errdefs.ErrPermissionDenied, errdefs.ErrInternal, errdefs.ErrNotImplemented} {
		if errors.Is(err, class) {
			return err
		}
	}
	return errs.InvalidArgument("%w", err)
}

// checkLayers holds what the configuration says of the layers against what the
// manifest says.
func checkLayers(config *ocispec.RootFS, layers []ocispec.Descriptor) error {
	if len(config.DiffIDs) != len(layers) {
		return errs.InvalidArgument("the image's configuration has %d layers and its manifest %d",
			len(config.DiffIDs), len(layers))
	}
	return nil
}
