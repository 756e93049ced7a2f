package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-containers/gantry/internal/registry"
)

// The steps of a layer on its way out, as Docker words them.
const (
	stepPreparing   = "Preparing"
	stepQueued      = "Waiting"
	stepCompressing = "Compressing"
	stepPushing     = "Pushing"
	stepPushed      = "Pushed"
	stepThere       = "Layer already exists"
)

// errAbsent is why a blob that is not here cannot be sent.
var errAbsent = errors.New("the blob is not here")

// part is a manifest as it came, where everything it names is here or can be
// had at the registry: a layer may have come in another compression than the
// manifest says, as another image had it before. Else it is one written to name
// what there is.
func (p *pusher) part(ctx context.Context, k keptManifest) (*outgoing, error) {
	if k.ID != "" {
		if part, err := p.original(ctx, k); err != nil || part != nil {
			return part, err
		}
	}
	part, err := p.m.outgoing(k)
	if err != nil || part.desc.Digest == k.Descriptor.Digest {
		return part, err
	}
	_, err = p.in.putBytes(ctx, part.data)
	return part, err
}

// original is the manifest as it came; nil when the registry cannot do with it.
func (p *pusher) original(ctx context.Context, k keptManifest) (*outgoing, error) {
	manifest, data, err := p.m.manifest(k.Descriptor.Digest)
	if err != nil {
		return nil, err
	}
	missing := missingBlobs(manifest, k)
	if len(missing) == 0 {
		return nil, nil // as it is is how it goes anyway
	}
	for _, d := range missing {
		_, err := p.repo.PushBlob(ctx, d, func(context.Context, int64) (io.ReadCloser, error) { return nil, errAbsent },
			registry.PushOptions{MountFrom: p.m.sources(p.name, d.Digest)})
		if errors.Is(err, errAbsent) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	p.m.mu.RLock()
	defer p.m.mu.RUnlock()
	out := &outgoing{desc: k.Descriptor, data: data, blobs: k.Blobs, layers: manifest.Layers, platform: k.Platform, image: p.m.byID[k.ID]}
	if out.image == nil {
		return nil, nil // and hear that it is gone
	}
	return out, nil
}

// send brings everything to the registry, the tag last.
func (p *pusher) send(ctx context.Context, s *shipment) error {
	if err := p.sendBlobs(ctx, s.parts); err != nil {
		return err
	}
	for _, part := range s.parts {
		ref := part.desc.Digest.String()
		if s.index == nil {
			ref = p.name.Tag()
		}
		if _, err := p.repo.PushManifest(ctx, ref, mediaTypeOf(part.desc, part.data), part.data); err != nil {
			return err
		}
	}
	if s.index == nil {
		return nil
	}
	_, err := p.repo.PushManifest(ctx, p.name.Tag(), mediaTypeOf(s.desc, s.index), s.index)
	return err
}

// mediaTypeOf is what a manifest says it is, or else what it was called.
func mediaTypeOf(desc ocispec.Descriptor, data []byte) string {
	if kind, err := kindOf(desc.MediaType, data); err == nil {
		return kind
	}
	return desc.MediaType
}

// freight is one blob to be sent.
type freight struct {
	desc ocispec.Descriptor
	id   string // shown to those who watch; empty for what they do not care about
}

// freightOf lists the blobs of all parts, each once, layers under the names
// people know them by.
func freightOf(parts []*outgoing) (list []freight) {
	for _, part := range parts {
		for _, d := range part.blobs {
			if slices.ContainsFunc(list, func(f freight) bool { return f.desc.Digest == d.Digest }) {
				continue
			}
			f := freight{desc: d}
			i := slices.IndexFunc(part.layers, func(l ocispec.Descriptor) bool { return l.Digest == d.Digest })
			switch {
			case part.image == nil:
				f.id = short(d.Digest)
			case i >= 0 && i < len(part.image.Layers):
				f.id = short(part.image.Layers[i].DiffID)
			}
			list = append(list, f)
		}
	}
	return list
}

// sendBlobs sends several at once.
func (p *pusher) sendBlobs(ctx context.Context, parts []*outgoing) error {
	list := freightOf(parts)
	for _, f := range list {
		p.tell(f.id, stepPreparing)
	}
	if len(list) > p.m.opts.Uploads {
		for _, f := range list[p.m.opts.Uploads:] {
			p.tell(f.id, stepQueued)
		}
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(p.m.opts.Uploads)
	for _, f := range list {
		eg.Go(func() error { return p.sendBlob(ctx, f) })
	}
	return eg.Wait()
}

// tell changes a layer's line: without a step, an empty one too, clients would
// begin another line below it.
func (p *pusher) tell(id, status string) {
	if id != "" {
		p.out.layer(id)(step{status: status})
	}
}

func (p *pusher) sendBlob(ctx context.Context, f freight) error {
	open := func(_ context.Context, offset int64) (io.ReadCloser, error) {
		file, err := p.m.opts.Content.Open(f.desc.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			file.Close()
			return nil, err
		}
		return file, nil
	}
	o := registry.PushOptions{MountFrom: p.m.sources(p.name, f.desc.Digest)}
	if f.id != "" {
		o.Progress = throttled(p.out.layer(f.id), f.desc.Size)
	}
	done := p.m.uploads.remember(p.name, f.desc, &o)
	result, err := p.repo.PushBlob(ctx, f.desc, open, o)
	done(err)
	if err != nil {
		return err
	}
	switch result.Outcome {
	case registry.Existed:
		p.tell(f.id, stepThere)
	case registry.Mounted:
		p.tell(f.id, "Mounted from "+result.From)
	default:
		p.tell(f.id, stepPushed)
	}
	return nil
}

// throttled tells of an upload ten times a second. It is for one goroutine.
func throttled(report func(step), total int64) func(int64) {
	var last time.Time
	return func(written int64) {
		if now := time.Now(); now.Sub(last) >= 100*time.Millisecond || written == total {
			last = now
			report(step{stepPushing, written, total})
		}
	}
}

// sourceRecord is which blobs a repository of a registry has, as far as they
// came from there or went there.
type sourceRecord struct {
	Blobs []digest.Digest `json:"blobs"`
}

// sources lists the repositories of the registry of a name, but for its own,
// that have a blob, as the registry calls them.
func (m *Manager) sources(name reference.Named, blob digest.Digest) (repositories []string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for repository, blobs := range m.bySource {
		from, err := reference.WithName(repository)
		if err != nil || !blobs[blob] || repository == name.Name() || reference.Domain(from) != reference.Domain(name) {
			continue
		}
		repositories = append(repositories, reference.Path(from))
	}
	slices.Sort(repositories)
	return repositories
}

// noteSources remembers that the repository of a name has all of the parts. It
// is a hint, so that a failure to keep it is no failure of anything.
func (m *Manager) noteSources(name reference.Named, parts []*outgoing) {
	var blobs []digest.Digest
	for _, part := range parts {
		for _, d := range blobsOf(part.data) {
			blobs = append(blobs, d.Digest)
		}
	}
	m.noteBlobs(name, blobs)
}

// noteBlobs remembers that the repository of a name has the blobs, and forgets
// those of it that are not here any more.
func (m *Manager) noteBlobs(name reference.Named, blobs []digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	had := m.bySource[name.Name()]
	known := !slices.ContainsFunc(blobs, func(d digest.Digest) bool { return !had[d] })
	if known {
		return
	}
	now := map[digest.Digest]bool{}
	for d := range had {
		if m.stored(d) {
			now[d] = true
		}
	}
	for _, d := range blobs {
		now[d] = true
	}
	rec := &sourceRecord{}
	for d := range now {
		rec.Blobs = append(rec.Blobs, d)
	}
	slices.Sort(rec.Blobs)
	if err := m.sourced.Put(name.Name(), rec); err == nil {
		m.bySource[name.Name()] = now
	}
}

// restoreSources reads which repository has what.
func (m *Manager) restoreSources() error {
	records, err := m.sourced.All()
	if err != nil {
		return fmt.Errorf("cannot read which repositories have which blobs: %w", err)
	}
	for repository, rec := range records {
		blobs := map[digest.Digest]bool{}
		for _, d := range rec.Blobs {
			blobs[d] = true
		}
		m.bySource[repository] = blobs
	}
	return nil
}

// notePulled remembers that the repository of a name has what was pulled of it:
// the blobs the manifests name, whichever of the same layer is here.
func (m *Manager) notePulled(name reference.Named, t *target) {
	var manifests []digest.Digest
	if t.index != nil {
		for _, k := range t.index.Kept {
			manifests = append(manifests, k.Descriptor.Digest)
		}
	} else {
		manifests = append(manifests, t.desc.Digest)
	}
	var blobs []digest.Digest
	for _, dgst := range manifests {
		data, err := m.opts.Content.ReadAll(dgst, registry.MaxManifest)
		if err != nil {
			continue
		}
		for _, d := range blobsOf(data) {
			blobs = append(blobs, d.Digest)
		}
	}
	m.noteBlobs(name, blobs)
}
