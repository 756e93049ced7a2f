package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	minio "github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Manifest implements depot.Reader.
func (b *Bucket) Manifest(ctx context.Context, repository, reference string) (depot.Manifest, []byte, error) {
	if err := depot.CheckRepository(repository); err != nil {
		return depot.Manifest{}, nil, err
	}
	dgst := digest.Digest(reference)
	if strings.Contains(reference, ":") {
		if err := depot.CheckDigest(dgst); err != nil {
			return depot.Manifest{}, nil, err
		}
	} else {
		tag, err := b.Tag(ctx, repository, reference)
		if err != nil {
			return depot.Manifest{}, nil, err
		}
		dgst = tag.Digest
	}
	var m depot.Manifest
	var body []byte
	err := b.holds.Look(ctx, repository, dgst, func() (err error) {
		var ok bool
		if m, body, ok, err = b.manifest(ctx, repository, dgst); err == nil && !ok {
			err = depot.ManifestUnknown(repository, reference)
		}
		return err
	})
	return m, body, err
}

// manifest reads one without holding it.
func (b *Bucket) manifest(ctx context.Context, repository string, dgst digest.Digest) (m depot.Manifest, body []byte, ok bool, err error) {
	data, _, ok, err := b.get(ctx, join("manifests", repository, string(dgst)))
	if err != nil || !ok {
		return m, nil, false, err
	}
	record, body, _ := bytes.Cut(data, []byte{'\n'})
	if err := json.Unmarshal(record, &m); err != nil {
		return m, nil, false, errs.System("the record of manifest %s is damaged: %v", dgst, err)
	}
	return m, body, true, nil
}

// StatManifest implements depot.Reader.
func (b *Bucket) StatManifest(ctx context.Context, repository, reference string) (depot.Manifest, error) {
	m, _, err := b.Manifest(ctx, repository, reference)
	return m, err
}

// Tag implements depot.Reader.
func (b *Bucket) Tag(ctx context.Context, repository, name string) (t depot.Tag, err error) {
	if depot.CheckTag(name) != nil { // or it would be some other key
		return t, depot.ManifestUnknown(repository, name)
	}
	data, _, ok, err := b.get(ctx, join("tags", repository, name))
	if err != nil {
		return t, err
	}
	if !ok {
		return t, depot.ManifestUnknown(repository, name)
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, errs.System("the record of tag %s:%s is damaged: %v", repository, name, err)
	}
	return t, nil
}

// PutManifest implements depot.Depot.
func (b *Bucket) PutManifest(ctx context.Context, repository string, m depot.Manifest, body []byte, o depot.PutOptions) error {
	if err := depot.CheckManifest(repository, &m, o.Tags); err != nil {
		return err
	}
	for _, dgst := range append(m.Names(), m.Digest) {
		b.holds.Note(repository, dgst)
	}
	if m.Pushed.IsZero() {
		m.Pushed = time.Now().UTC()
	}
	record, err := json.Marshal(m)
	if err != nil {
		return err
	}
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	if !o.Sparse {
		missing, err := b.missing(ctx, repository, &m)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			return &depot.Missing{Repository: repository, Digests: missing}
		}
	}
	if err := b.ensure(ctx, repository); err != nil {
		return err
	}
	for _, named := range m.Names() {
		if err := b.put(ctx, join("uses", repository, string(named), string(m.Digest)), nil); err != nil {
			return err
		}
	}
	if err := b.put(ctx, join("manifests", repository, string(m.Digest)), append(append(record, '\n'), body...)); err != nil {
		return err
	}
	if m.Subject != "" {
		if err := b.put(ctx, join("referrers", repository, string(m.Subject), string(m.Digest)), nil); err != nil {
			return err
		}
	}
	for _, name := range o.Tags {
		if err := b.setTag(ctx, repository, depot.Tag{Name: name, Digest: m.Digest, Time: m.Pushed, By: m.By}); err != nil {
			return err
		}
	}
	return nil
}

// missing is what the manifest names and the repository does not have.
func (b *Bucket) missing(ctx context.Context, repository string, m *depot.Manifest) (list []digest.Digest, err error) {
	look := func(dgst digest.Digest, kinds ...string) error {
		for _, kind := range kinds {
			_, ok, err := b.stat(ctx, join(kind, repository, string(dgst)))
			if err != nil || ok {
				return err
			}
		}
		list = append(list, dgst)
		return nil
	}
	for _, dgst := range m.Blobs {
		if err := look(dgst, "links"); err != nil {
			return nil, err
		}
	}
	for _, dgst := range m.Manifests {
		if err := look(dgst, "manifests", "links"); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// setTag points a tag at a manifest. The caller has the repository's lock.
func (b *Bucket) setTag(ctx context.Context, repository string, t depot.Tag) error {
	old, err := b.Tag(ctx, repository, t.Name)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := b.put(ctx, join("tagged", repository, string(t.Digest), t.Name), nil); err != nil {
		return err
	}
	if err := b.put(ctx, join("tags", repository, t.Name), data); err != nil {
		return err
	}
	if old.Digest == "" || old.Digest == t.Digest {
		return nil
	}
	b.holds.Note(repository, old.Digest)
	return b.remove(ctx, join("tagged", repository, string(old.Digest), t.Name))
}

// untag removes a tag.
func (b *Bucket) untag(ctx context.Context, repository string, t depot.Tag) error {
	b.holds.Note(repository, t.Digest)
	return b.remove(ctx, join("tags", repository, t.Name), join("tagged", repository, string(t.Digest), t.Name))
}

// DeleteTag implements depot.Depot.
func (b *Bucket) DeleteTag(ctx context.Context, repository, name string) error {
	if err := depot.CheckTag(name); err != nil {
		return err
	}
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	tag, err := b.Tag(ctx, repository, name)
	if err != nil {
		return err
	}
	return b.untag(ctx, repository, tag)
}

// DeleteManifest implements depot.Depot.
func (b *Bucket) DeleteManifest(ctx context.Context, repository string, dgst digest.Digest) error {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return err
	}
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	m, _, ok, err := b.manifest(ctx, repository, dgst)
	if err != nil {
		return err
	}
	if !ok {
		return depot.ManifestUnknown(repository, string(dgst))
	}
	tags, err := b.list(ctx, join("tagged", repository, string(dgst), ""), "", "", -1)
	if err != nil {
		return err
	}
	for _, name := range tags {
		tag, err := b.Tag(ctx, repository, name)
		if err == nil && tag.Digest == dgst {
			err = b.untag(ctx, repository, tag)
		}
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	return b.erase(ctx, repository, m)
}

// erase removes a manifest that has no tags. The caller has the repository's
// lock.
func (b *Bucket) erase(ctx context.Context, repository string, m depot.Manifest) error {
	// Somebody may have been told of these by the manifest alone.
	for _, named := range m.Names() {
		b.holds.Note(repository, named)
	}
	dgst := string(m.Digest)
	if m.Subject != "" {
		if err := b.remove(ctx, join("referrers", repository, string(m.Subject), dgst)); err != nil {
			return err
		}
	}
	if err := b.remove(ctx, join("manifests", repository, dgst)); err != nil {
		return err
	}
	for _, named := range m.Names() {
		if err := b.remove(ctx, join("uses", repository, string(named), dgst)); err != nil {
			return err
		}
	}
	return nil
}

// Exists implements depot.Reader.
func (b *Bucket) Exists(ctx context.Context, repository string) (bool, error) {
	_, ok, err := b.stat(ctx, join("repositories", repository, ""))
	return ok, err
}

// Repositories implements depot.Reader.
func (b *Bucket) Repositories(ctx context.Context, after string, n int) ([]string, error) {
	return b.list(ctx, "repositories/", "!", after, n)
}

// Tags implements depot.Reader.
func (b *Bucket) Tags(ctx context.Context, repository, after string, n int) ([]string, error) {
	return b.list(ctx, join("tags", repository, ""), "", after, n)
}

// Manifests implements depot.Reader.
func (b *Bucket) Manifests(ctx context.Context, repository, after string, n int) ([]digest.Digest, error) {
	names, err := b.list(ctx, join("manifests", repository, ""), "", after, n)
	list := make([]digest.Digest, len(names))
	for i, name := range names {
		list[i] = digest.Digest(name)
	}
	return list, err
}

// Referrers implements depot.Reader.
func (b *Bucket) Referrers(ctx context.Context, repository string, subject digest.Digest, after string, n int) (list []depot.Manifest, err error) {
	if err := depot.CheckBoth(repository, subject); err != nil {
		return nil, err
	}
	names, err := b.list(ctx, join("referrers", repository, string(subject), ""), "", after, n)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		m, _, ok, err := b.manifest(ctx, repository, digest.Digest(name))
		if err != nil {
			return nil, err
		}
		if ok { // else it was deleted since
			list = append(list, m)
		}
	}
	return list, nil
}

// Graph implements depot.Collectable.
func (b *Bucket) Graph(ctx context.Context, repository string, f func(m depot.Manifest, tagged bool) error) error {
	return b.each(ctx, join("manifests", repository, ""), "", 1000, func(name string, _ minio.ObjectInfo) error {
		m, _, ok, err := b.manifest(ctx, repository, digest.Digest(name))
		if err != nil || !ok {
			return err
		}
		tagged, err := b.anyWith(ctx, join("tagged", repository, name, ""))
		if err != nil {
			return err
		}
		return f(m, tagged)
	})
}

// Blobs implements depot.Collectable. The time is when the repository was given
// the blob.
func (b *Bucket) Blobs(ctx context.Context, repository string, f func(depot.Info) error) error {
	return b.each(ctx, join("links", repository, ""), "", 1000, func(name string, _ minio.ObjectInfo) error {
		info, err := b.linked(ctx, repository, digest.Digest(name))
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return f(info)
	})
}

// Drop implements depot.Collectable.
func (b *Bucket) Drop(ctx context.Context, repository string, dgst digest.Digest, before time.Time) (bool, int64, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return false, 0, err
	}
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	done := b.holds.Dropping(repository, dgst, before)
	if done == nil {
		return false, 0, nil
	}
	defer done()
	info, err := b.linked(ctx, repository, dgst)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	by, err := b.usedBy(ctx, repository, dgst)
	if err != nil || by != "" {
		return false, 0, err
	}
	freed, err := b.unlink(ctx, repository, info)
	return err == nil, freed, err
}

// DropManifest implements depot.Collectable.
func (b *Bucket) DropManifest(ctx context.Context, repository string, dgst digest.Digest, before time.Time) (bool, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return false, err
	}
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	done := b.holds.Dropping(repository, dgst, before)
	if done == nil {
		return false, nil
	}
	defer done()
	m, _, ok, err := b.manifest(ctx, repository, dgst)
	if err != nil || !ok || !m.Pushed.Before(before) {
		return false, err
	}
	by, err := b.usedBy(ctx, repository, dgst)
	if err != nil || by != "" {
		return false, err
	}
	tagged, err := b.anyWith(ctx, join("tagged", repository, string(dgst), ""))
	if err != nil || tagged {
		return false, err
	}
	err = b.erase(ctx, repository, m)
	return err == nil, err
}

// DropTag implements depot.Collectable.
func (b *Bucket) DropTag(ctx context.Context, repository string, tag depot.Tag) (bool, error) {
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	now, err := b.Tag(ctx, repository, tag.Name)
	if errors.Is(err, errdefs.ErrNotFound) || err == nil && (now.Digest != tag.Digest || !now.Time.Equal(tag.Time)) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = b.untag(ctx, repository, now)
	return err == nil, err
}

// DropRepository implements depot.Collectable.
func (b *Bucket) DropRepository(ctx context.Context, repository string, before time.Time) (bool, error) {
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	birth := &b.births[stripe(repository)]
	birth.Lock()
	defer birth.Unlock()
	key := join("repositories", repository, "")
	info, ok, err := b.stat(ctx, key)
	if err != nil || !ok || !info.LastModified.Before(before) {
		return false, err
	}
	for _, kind := range []string{"links", "manifests", "tags"} {
		full, err := b.anyWith(ctx, join(kind, repository, ""))
		if err != nil || full {
			return false, err
		}
	}
	b.forget(repository)
	err = b.remove(ctx, key)
	return err == nil, err
}

// Sweep implements depot.Collectable: bytes of blobs that nobody has.
func (b *Bucket) Sweep(ctx context.Context, before time.Time) (freed int64, err error) {
	b.holds.Forget(before)
	err = b.each(ctx, "blobs/", "", 1000, func(rest string, o minio.ObjectInfo) error {
		algorithm, hex, _ := strings.Cut(rest, "/")
		dgst := digest.Digest(algorithm + ":" + hex)
		if depot.CheckDigest(dgst) != nil || !o.LastModified.Before(before) {
			return nil
		}
		lock := b.digestLock(dgst)
		lock.Lock()
		defer lock.Unlock()
		held, err := b.anyWith(ctx, join("holders", string(dgst), ""))
		if err != nil || held {
			return err
		}
		freed += o.Size
		return b.remove(ctx, blobKey(dgst))
	})
	return freed, err
}
