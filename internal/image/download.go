package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/snapshot"
)

// download brings a blob into the store and has it used on its way, as one
// stream. What an earlier download left of it is read from the disk and only
// the rest fetched; when that does not make the blob, all of it is, and where a
// mirror or neighbour sent it, from somebody else.
func (m *Manager) download(ctx context.Context, in *ingest, desc ocispec.Descriptor, open opener, report func(step), use func(io.Reader) error) error {
	for {
		d := &downloading{in: in, desc: desc, open: open, report: report}
		err := d.run(ctx, use)
		if err == nil || d.arrived || !errors.Is(err, errdefs.ErrInvalidArgument) {
			return err
		}
		// What was kept may as well be what is wrong; all of it is asked for then.
		if d.kept == 0 && !registry.Distrust(d.from) {
			return err
		}
	}
}

// downloading is one try to download a blob.
type downloading struct {
	in     *ingest
	desc   ocispec.Descriptor
	open   opener
	report func(step)
	kept   int64 // bytes that were there

	from    io.ReadCloser // where the rest came from; nil is nowhere yet
	arrived bool          // the blob is in the store: it was what was asked for
}

func (d *downloading) run(ctx context.Context, use func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := d.in.m.opts.Content.Resume(ctx, d.desc.Digest, d.desc.Size)
	if err != nil {
		return err
	}
	defer w.Close()
	d.kept = w.Kept()
	rest := &restReader{ctx: ctx, d: d}
	defer rest.Close()
	at := step{stepDownloading, d.kept, d.desc.Size}
	if d.kept > 0 {
		// Without counts: clients that do not draw bars leave out what has some.
		d.report(step{status: "Resuming at " + units.HumanSizeWithPrecision(float64(d.kept), 3)})
	}
	d.report(at)
	ahead := newReadahead(io.MultiReader(w.KeptReader(), io.TeeReader(&meter{r: rest, report: d.report, step: at}, w)))
	defer ahead.Close() // before what its goroutine reads,
	defer cancel()      // and not to wait for a read that hangs
	if err = use(ahead); err != nil {
		err = blame(err, ahead, func() error { return d.commit(w) })
	} else if _, err = io.Copy(io.Discard, ahead); err == nil { // what follows an archive's end belongs to the blob all the same
		err = d.commit(w)
	}
	if errors.Is(err, errdefs.ErrInvalidArgument) {
		w.Discard()
	}
	return err
}

func (d *downloading) commit(w *content.Writer) error {
	d.report(step{status: stepVerifying})
	if _, err := d.in.commit(w); err != nil {
		return err
	}
	d.arrived = true
	d.report(step{status: stepDownloaded})
	return nil
}

// restReader reads what is not here of a blob. It is opened when it is needed:
// meanwhile the connection would stand still.
type restReader struct {
	ctx context.Context
	d   *downloading
}

func (rr *restReader) Read(p []byte) (int, error) {
	if rr.d.from == nil {
		if rr.d.kept > 0 && rr.d.kept == rr.d.desc.Size {
			return 0, io.EOF
		}
		r, err := rr.d.openRest(rr.ctx)
		if err != nil {
			return 0, err
		}
		rr.d.from = r
	}
	return rr.d.from.Read(p)
}

func (rr *restReader) Close() error {
	if rr.d.from == nil {
		return nil
	}
	return rr.d.from.Close()
}

// openRest asks for the rest of the blob; for all of it where that is refused,
// as by a registry that knows no ranges.
func (d *downloading) openRest(ctx context.Context) (io.ReadCloser, error) {
	r, err := d.open(ctx, d.desc, d.kept)
	if err == nil || d.kept == 0 || ctx.Err() != nil || errors.Is(err, errdefs.ErrNotFound) ||
		errors.Is(err, errdefs.ErrUnauthenticated) || errors.Is(err, errdefs.ErrPermissionDenied) {
		return r, err
	}
	if r, err = d.open(ctx, d.desc, 0); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, d.kept); err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot go on with blob %s: %w", d.desc.Digest, err)
	}
	return r, nil
}

// blameLimit is how much of a blob is read on, in bytes, to find out whether
// it was damaged on its way.
const blameLimit = 64 << 20

// blame finds the cause of a layer that cannot be unpacked: more often than
// not its blob is not the one that was asked for, and that is the thing to say.
func blame(err error, rest io.Reader, commit func() error) error {
	full := errors.Is(err, syscall.ENOSPC) && !errors.Is(err, snapshot.ErrNoRoom) // that may be a bomb's doing
	if errors.Is(err, context.Canceled) || full || errors.Is(err, syscall.EDQUOT) {
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
