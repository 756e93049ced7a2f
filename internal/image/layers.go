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

// opener opens a blob where it comes from. The reader is checked for the
// descriptor's size and digest by who reads it.
type opener func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)

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
		if l, ok := m.known(in, diffID, desc); ok { // since we looked
			report(step{status: stepExists})
			return l, nil
		}
		have := in.adopt(desc.Digest)
		if have {
			open = m.fromStore
		}
		size, err := m.fetch(ctx, in, diffID, desc, open, !have, report)
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
		result := layerRecord{Blob: desc}
		if in.adopt(desc.Digest) { // since we looked
			report(step{status: stepExists})
			return result, nil
		}
		r, err := open(ctx, desc)
		if err != nil {
			return result, err
		}
		defer r.Close()
		report(step{stepDownloading, 0, desc.Size})
		_, _, err = in.put(ctx, &meter{r: r, report: report, step: step{stepDownloading, 0, desc.Size}}, desc.Digest, desc.Size)
		if err == nil {
			report(step{status: stepDownloaded})
		}
		return result, err
	})
}

func (m *Manager) fromStore(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return m.opts.Content.Open(desc.Digest)
}

// fetch unpacks the layer from its blob, and keeps the blob when told to.
func (m *Manager) fetch(ctx context.Context, in *ingest, diffID digest.Digest, desc ocispec.Descriptor, open opener, keep bool, report func(step)) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	source, err := open(ctx, desc)
	if err != nil {
		return 0, err
	}
	defer source.Close()
	var r io.Reader = source
	commit := func() error { return nil }
	if keep {
		w, err := in.m.opts.Content.NewWriter(ctx, desc.Digest, desc.Size)
		if err != nil {
			return 0, err
		}
		defer w.Close()
		report(step{stepDownloading, 0, desc.Size})
		r = io.TeeReader(&meter{r: r, report: report, step: step{stepDownloading, 0, desc.Size}}, w)
		commit = func() error {
			report(step{status: stepVerifying})
			_, err := in.commit(w)
			if err == nil {
				report(step{status: stepDownloaded})
			}
			return err
		}
	} else {
		r = &meter{r: r, report: report, step: step{stepExtracting, 0, desc.Size}}
	}
	ahead := newReadahead(r)
	defer ahead.Close() // before source, which its goroutine reads
	size, err := m.unpack(ctx, diffID, ahead)
	if err != nil {
		return 0, blame(err, ahead, commit)
	}
	// What follows the end of the archive belongs to the blob all the same.
	if _, err := io.Copy(io.Discard, ahead); err != nil {
		return 0, err
	}
	if err := commit(); err != nil {
		return 0, err
	}
	report(step{stepExtracting, desc.Size, desc.Size})
	return size, nil
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

// blameLimit is how much of a blob is read on, in bytes, to find out whether
// it was damaged on its way.
const blameLimit = 64 << 20

// blame finds the cause of a layer that cannot be unpacked: more often than
// not its blob is not the one that was asked for, and that is the thing to say.
func blame(err error, rest io.Reader, commit func() error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return err
	}
	n, cut := io.Copy(io.Discard, io.LimitReader(rest, blameLimit))
	if cut != nil {
		return cut
	}
	if n < blameLimit {
		if wrong := commit(); wrong != nil {
			return wrong
		}
	}
	return err
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
