package directory

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Manifest implements depot.Reader.
func (d *Directory) Manifest(ctx context.Context, repository, reference string) (m depot.Manifest, body []byte, err error) {
	err = d.manifest(ctx, repository, reference, func(tx *bolt.Tx, found depot.Manifest) error {
		m = found
		body, err = d.body(tx, m)
		return err
	})
	return m, body, err
}

// StatManifest implements depot.Reader.
func (d *Directory) StatManifest(ctx context.Context, repository, reference string) (m depot.Manifest, err error) {
	err = d.manifest(ctx, repository, reference, func(_ *bolt.Tx, found depot.Manifest) error {
		m = found
		return nil
	})
	return m, err
}

// manifest finds a manifest and holds it.
func (d *Directory) manifest(ctx context.Context, repository, reference string, f func(tx *bolt.Tx, m depot.Manifest) error) error {
	if err := depot.CheckRepository(repository); err != nil {
		return err
	}
	find := func(tx *bolt.Tx, dgst digest.Digest) error {
		m, ok, err := getManifest(tx, repository, dgst)
		if err != nil {
			return err
		}
		if !ok {
			return depot.ManifestUnknown(repository, reference)
		}
		return f(tx, m)
	}
	if strings.Contains(reference, ":") {
		dgst := digest.Digest(reference)
		if err := depot.CheckDigest(dgst); err != nil {
			return err
		}
		return d.holds.Look(ctx, repository, dgst, func() error {
			return d.view(ctx, func(tx *bolt.Tx) error { return find(tx, dgst) })
		})
	}
	return d.view(ctx, func(tx *bolt.Tx) error {
		tag, ok, err := getTag(tx, repository, reference)
		if err != nil {
			return err
		}
		if !ok {
			return depot.ManifestUnknown(repository, reference)
		}
		d.holds.Note(repository, tag.Digest) // what has a tag is not being dropped
		return find(tx, tag.Digest)
	})
}

func getManifest(tx *bolt.Tx, repository string, dgst digest.Digest) (m depot.Manifest, ok bool, err error) {
	record := tx.Bucket(bManifests).Get(key(repository, string(dgst)))
	if record == nil {
		return m, false, nil
	}
	if err := json.Unmarshal(record, &m); err != nil {
		return m, false, errs.System("the record of manifest %s is damaged: %v", dgst, err)
	}
	return m, true, nil
}

func getTag(tx *bolt.Tx, repository, name string) (t depot.Tag, ok bool, err error) {
	record := tx.Bucket(bTags).Get(key(repository, name))
	if record == nil {
		return t, false, nil
	}
	if err := json.Unmarshal(record, &t); err != nil {
		return t, false, errs.System("the record of tag %s:%s is damaged: %v", repository, name, err)
	}
	t.Name = name
	return t, true, nil
}

// body reads the bytes of a manifest.
func (d *Directory) body(tx *bolt.Tx, m depot.Manifest) ([]byte, error) {
	record := tx.Bucket(bContent).Get([]byte(m.Digest))
	if len(record) < contentFixed {
		return nil, errs.System("the content of manifest %s is missing", m.Digest)
	}
	if record[0] == inDatabase {
		return bytes.Clone(record[contentFixed:]), nil
	}
	f, err := d.open(m.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body := make([]byte, m.Size)
	_, err = io.ReadFull(f, body)
	return body, err
}

// PutManifest implements depot.Depot.
func (d *Directory) PutManifest(ctx context.Context, repository string, m depot.Manifest, body []byte, o depot.PutOptions) error {
	if err := depot.CheckManifest(repository, &m, o.Tags); err != nil {
		return err
	}
	for _, dgst := range append(m.Names(), m.Digest) {
		d.holds.Note(repository, dgst)
	}
	where := byte(inDatabase)
	if len(body) > inline {
		where = inFile
		lock := d.stripe(m.Digest)
		lock.Lock()
		defer lock.Unlock()
		if err := d.settleBytes(m.Digest, body); err != nil {
			return err
		}
	}
	if m.Pushed.IsZero() {
		m.Pushed = time.Now().UTC()
	}
	return d.update(func(tx *bolt.Tx) error {
		if !o.Sparse {
			if missing := missing(tx, repository, &m); len(missing) > 0 {
				return &depot.Missing{Repository: repository, Digests: missing}
			}
		}
		if tx.Bucket(bContent).Get([]byte(m.Digest)) == nil {
			data := body
			if where == inFile {
				data = nil
			}
			if err := tx.Bucket(bContent).Put([]byte(m.Digest), contentRecord(where, int64(len(body)), data)); err != nil {
				return err
			}
		}
		if err := record(tx, repository, &m); err != nil {
			return err
		}
		for _, name := range o.Tags {
			if err := d.setTag(tx, repository, depot.Tag{Name: name, Digest: m.Digest, Time: m.Pushed, By: m.By}); err != nil {
				return err
			}
		}
		return nil
	})
}

// settleBytes makes a large manifest a file, unless it is one.
func (d *Directory) settleBytes(dgst digest.Digest, body []byte) error {
	f, err := os.CreateTemp(filepath.Join(d.dir, "uploads"), "manifest-")
	if err != nil {
		return fmt.Errorf("cannot store the manifest: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		_, err = d.settle(f.Name(), dgst)
	}
	if err != nil {
		return fmt.Errorf("cannot store the manifest: %w", err)
	}
	return nil
}

// missing is what the manifest names and the repository does not have.
func missing(tx *bolt.Tx, repository string, m *depot.Manifest) (list []digest.Digest) {
	for _, dgst := range m.Blobs {
		if tx.Bucket(bLinks).Get(key(repository, string(dgst))) == nil {
			list = append(list, dgst)
		}
	}
	for _, dgst := range m.Manifests {
		k := key(repository, string(dgst))
		if tx.Bucket(bManifests).Get(k) == nil && tx.Bucket(bLinks).Get(k) == nil {
			list = append(list, dgst)
		}
	}
	return list
}

// record writes everything about a manifest but its bytes and tags.
func record(tx *bolt.Tx, repository string, m *depot.Manifest) error {
	if err := ensure(tx, repository); err != nil {
		return err
	}
	value, err := json.Marshal(m)
	if err != nil {
		return err
	}
	dgst := string(m.Digest)
	if err := tx.Bucket(bManifests).Put(key(repository, dgst), value); err != nil {
		return err
	}
	if err := tx.Bucket(bHolders).Put(key(dgst, repository, asManifest), nil); err != nil {
		return err
	}
	for _, named := range m.Names() {
		if err := tx.Bucket(bUses).Put(key(repository, string(named), dgst), nil); err != nil {
			return err
		}
	}
	if m.Subject != "" {
		return tx.Bucket(bReferrers).Put(key(repository, string(m.Subject), dgst), nil)
	}
	return nil
}

// setTag points a tag at a manifest. The manifest it named before is held, as a
// client may be pulling it.
func (d *Directory) setTag(tx *bolt.Tx, repository string, t depot.Tag) error {
	if err := d.untag(tx, repository, t.Name); err != nil {
		return err
	}
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bTags).Put(key(repository, t.Name), value); err != nil {
		return err
	}
	return tx.Bucket(bTagged).Put(key(repository, string(t.Digest), t.Name), nil)
}

// untag removes a tag if there is one.
func (d *Directory) untag(tx *bolt.Tx, repository, name string) error {
	old, ok, err := getTag(tx, repository, name)
	if err != nil || !ok {
		return err
	}
	d.holds.Note(repository, old.Digest)
	if err := tx.Bucket(bTagged).Delete(key(repository, string(old.Digest), name)); err != nil {
		return err
	}
	return tx.Bucket(bTags).Delete(key(repository, name))
}

// DeleteTag implements depot.Depot.
func (d *Directory) DeleteTag(_ context.Context, repository, tag string) error {
	if err := depot.CheckTag(tag); err != nil {
		return err
	}
	return d.update(func(tx *bolt.Tx) error {
		if tx.Bucket(bTags).Get(key(repository, tag)) == nil {
			return depot.ManifestUnknown(repository, tag)
		}
		return d.untag(tx, repository, tag)
	})
}

// DeleteManifest implements depot.Depot.
func (d *Directory) DeleteManifest(_ context.Context, repository string, dgst digest.Digest) error {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return err
	}
	return d.removeManifest(repository, dgst, func(_ *bolt.Tx, _ depot.Manifest, there bool) error {
		if !there {
			return depot.ManifestUnknown(repository, string(dgst))
		}
		return nil
	})
}

// removeManifest removes a manifest if allowed agrees.
func (d *Directory) removeManifest(repository string, dgst digest.Digest, allowed func(tx *bolt.Tx, m depot.Manifest, there bool) error) error {
	lock := d.stripe(dgst)
	lock.Lock()
	defer lock.Unlock()
	file := false
	err := d.update(func(tx *bolt.Tx) error {
		file = false
		m, there, err := getManifest(tx, repository, dgst)
		if err != nil {
			return err
		}
		if err := allowed(tx, m, there); err != nil {
			return err
		}
		// Somebody may have been told of these by the manifest alone.
		for _, named := range m.Names() {
			d.holds.Note(repository, named)
		}
		file, err = d.erase(tx, repository, m)
		return err
	})
	if err == nil && file {
		err = os.Remove(d.path(dgst))
	}
	return err
}

// erase removes a manifest and everything that was recorded with it.
func (d *Directory) erase(tx *bolt.Tx, repository string, m depot.Manifest) (file bool, err error) {
	dgst := string(m.Digest)
	prefix := key(repository, dgst, "")
	var tags []string
	c := tx.Bucket(bTagged).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		tags = append(tags, string(k[len(prefix):]))
	}
	for _, tag := range tags {
		if err := d.untag(tx, repository, tag); err != nil {
			return false, err
		}
	}
	for _, named := range m.Names() {
		if err := tx.Bucket(bUses).Delete(key(repository, string(named), dgst)); err != nil {
			return false, err
		}
	}
	if m.Subject != "" {
		if err := tx.Bucket(bReferrers).Delete(key(repository, string(m.Subject), dgst)); err != nil {
			return false, err
		}
	}
	if err := tx.Bucket(bManifests).Delete(key(repository, dgst)); err != nil {
		return false, err
	}
	_, file, err = release(tx, repository, m.Digest, asManifest)
	return file, err
}
