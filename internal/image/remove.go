package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// RemoveOptions says how much to remove.
type RemoveOptions struct {
	Force    bool
	NoPrune  bool // keep untagged parents
	Platform *ocispec.Platform
}

// Remove takes a name from an image, and removes the image when that was its
// last, or when it was named by its ID. It returns what was done also when it
// fails half way. It fails with ErrNotFound, and with ErrConflict when the
// image is in use or has more names than one.
func (m *Manager) Remove(ctx context.Context, ref string, opts RemoveOptions) ([]image.DeleteResponse, error) {
	e, _, err := m.resolve(ref, opts.Platform)
	if err != nil {
		return nil, err
	}
	// Whoever asks hears of a removal once it is done.
	rm := &remover{m: m, ctx: context.WithoutCancel(ctx), opts: opts,
		blobs: map[digest.Digest]bool{}, layers: map[digest.Digest]bool{}}
	switch {
	case rm.isPart(e) && (opts.Platform != nil || isIDPrefix(e.id, ref)):
		err = rm.part(e)
	case isIDPrefix(e.id, ref):
		err = rm.byID(e)
	default:
		err = rm.byName(e, ref)
	}
	if sweepErr := m.sweep(rm.ctx, rm.blobs, rm.layers); err == nil {
		err = sweepErr
	}
	return rm.done, err
}

// remover is one removal under way.
type remover struct {
	m             *Manager
	ctx           context.Context
	opts          RemoveOptions
	done          []image.DeleteResponse
	blobs, layers map[digest.Digest]bool // which may be garbage now
}

// byName removes one name, and with it the image when that was the last.
func (rm *remover) byName(e *entry, ref string) error {
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	key := refKey(named)
	images := rm.imagesOf(key, e)
	for _, img := range images {
		if rm.opts.Force || !singleName(rm.keys(img.id)) {
			continue
		}
		if users := rm.m.opts.InUse(img.id); len(users) > 0 {
			return errs.Conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				ref, users[0][:min(12, len(users[0]))], short(img.id))
		}
	}
	if err := rm.untag(e, key); err != nil {
		return err
	}
	if !isDigestKey(key) {
		if err := rm.untagDigests(e, repositoryOf(key)); err != nil {
			return err
		}
	}
	for _, img := range images {
		if err := rm.unnamed(img); err != nil {
			return err
		}
	}
	return nil
}

// unnamed removes an image that has lost a name, unless it has another, or is
// needed without one.
func (rm *remover) unnamed(e *entry) error {
	if len(rm.keys(e.id)) > 0 {
		return nil
	}
	conflict := rm.conflict(e, !rm.opts.Force)
	if conflict != nil && len(rm.m.opts.InUse(e.id)) > 0 {
		return nil // it lives on without a name
	}
	if conflict != nil && conflict.children {
		return nil
	}
	return rm.remove(e)
}

// untagDigests removes the digests of a repository from which the image has no
// tag any more.
func (rm *remover) untagDigests(e *entry, repository string) error {
	var digests []string
	for _, key := range rm.keys(e.id) {
		if repositoryOf(key) != repository {
			continue
		}
		if !isDigestKey(key) {
			return nil
		}
		digests = append(digests, key)
	}
	for _, key := range digests {
		if err := rm.untag(e, key); err != nil {
			return err
		}
	}
	return nil
}

// byID removes the image with all its names.
func (rm *remover) byID(e *entry) error {
	keys := rm.keys(e.id)
	if conflict := rm.conflict(e, !rm.opts.Force); conflict != nil {
		return conflict
	}
	if !rm.opts.Force && len(keys) > 0 && !singleName(keys) {
		return errs.Conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short(e.id))
	}
	var others []*entry
	for _, key := range keys {
		others = append(others, rm.imagesOf(key, e)...)
		if err := rm.untag(e, key); err != nil {
			return err
		}
	}
	if err := rm.remove(e); err != nil {
		return err
	}
	for _, img := range others {
		if err := rm.unnamed(img); err != nil {
			return err
		}
	}
	return nil
}

func (rm *remover) keys(id digest.Digest) []string {
	rm.m.mu.RLock()
	defer rm.m.mu.RUnlock()
	return rm.m.references(id)
}

// singleName tells whether the references amount to one name: one tag at most,
// and the digests of its repository.
func singleName(keys []string) bool {
	tags := 0
	repositories := map[string]bool{}
	for _, key := range keys {
		repositories[repositoryOf(key)] = true
		if !isDigestKey(key) {
			tags++
		}
	}
	return tags <= 1 && len(repositories) == 1
}

func (rm *remover) untag(e *entry, key string) error {
	rm.m.mu.Lock()
	ref := rm.m.byRef[key]
	rm.blobs[ref.Target.Digest] = true
	if rec := rm.m.byIndex[ref.Target.Digest]; rec != nil {
		rec.eachBlob(func(d digest.Digest) { rm.blobs[d] = true })
	}
	err := rm.m.unpoint(key)
	rm.m.mu.Unlock()
	if err != nil {
		return err
	}
	rm.m.publish(events.ActionUnTag, e, e.id.String(), e.id.String())
	rm.done = append(rm.done, image.DeleteResponse{Untagged: familiar(key)})
	return nil
}

// deleteConflict is what forbids to delete an image.
type deleteConflict struct {
	error
	children bool
}

func (c *deleteConflict) Unwrap() error { return c.error }

// conflict tells what forbids the removal: children and running containers
// always do, stopped containers when soft is true.
func (rm *remover) conflict(e *entry, soft bool) *deleteConflict {
	const text = "conflict: unable to delete %s (%s) - %s"
	if rm.hasChildren(e.id) {
		return &deleteConflict{errs.Conflict(text, short(e.id), "cannot be forced", "image has dependent child images"), true}
	}
	using := func(how string, users []string) string {
		return fmt.Sprintf("image is being used by %s container %s", how, users[0][:min(12, len(users[0]))])
	}
	running := rm.m.opts.Running(e.id)
	if len(running) > 0 {
		return &deleteConflict{errs.Conflict(text, short(e.id), "cannot be forced", using("running", running)), false}
	}
	if users := rm.m.opts.InUse(e.id); soft && len(users) > 0 {
		return &deleteConflict{errs.Conflict(text, short(e.id), "must be forced", using("stopped", users)), false}
	}
	return nil
}

func (rm *remover) hasChildren(id digest.Digest) bool {
	rm.m.mu.RLock()
	defer rm.m.mu.RUnlock()
	for _, e := range rm.m.byID {
		if e.Parent == id {
			return true
		}
	}
	return false
}

// remove deletes the record of an image that has no name left, and then those
// parents that nobody needs.
func (rm *remover) remove(e *entry) error {
	before := rm.layersNamed()
	m := rm.m
	m.mu.Lock()
	if keys := m.references(e.id); len(keys) > 0 || m.byID[e.id] == nil {
		m.mu.Unlock()
		return nil // named anew, or gone, since we looked
	}
	if err := m.images.Delete(e.id.String()); err != nil {
		m.mu.Unlock()
		return err
	}
	delete(m.byID, e.id)
	m.mu.Unlock()

	rm.blobs[e.id], rm.blobs[e.Manifest.Digest] = true, true
	for _, l := range e.Layers {
		rm.blobs[l.Blob.Digest], rm.layers[l.DiffID] = true, true
	}
	rm.done = append(rm.done, image.DeleteResponse{Deleted: e.id.String()})
	rm.tellLayers(e, before)
	m.publish(events.ActionDelete, nil, e.id.String(), e.id.String())

	m.mu.RLock()
	parent := m.byID[e.Parent]
	m.mu.RUnlock()
	if parent == nil || rm.opts.NoPrune || len(rm.keys(parent.id)) > 0 || rm.conflict(parent, true) != nil {
		return nil
	}
	return rm.remove(parent)
}

func (rm *remover) layersNamed() map[digest.Digest]int {
	count := map[digest.Digest]int{}
	rm.m.mu.RLock()
	defer rm.m.mu.RUnlock()
	for _, e := range rm.m.byID {
		for _, chain := range chainIDs(e) {
			count[chain]++
		}
	}
	return count
}

// tellLayers lists the layers that went with the image, as Docker does: top
// first, by the IDs of their chains.
func (rm *remover) tellLayers(e *entry, before map[digest.Digest]int) {
	for _, chain := range slices.Backward(chainIDs(e)) {
		if before[chain] == 1 {
			rm.done = append(rm.done, image.DeleteResponse{Deleted: chain.String()})
		}
	}
}

// chainIDs are the IDs of an image's layers together with those below each.
func chainIDs(e *entry) []digest.Digest {
	return identity.ChainIDs(e.diffIDs())
}
