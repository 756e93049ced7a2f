package directory

import (
	"bytes"
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// list returns what follows prefix in the keys of a bucket, from after on.
func (d *Directory) list(ctx context.Context, bucket []byte, prefix, after string, n int) (names []string, err error) {
	err = d.view(ctx, func(tx *bolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		k, _ := c.Seek([]byte(prefix + after))
		if after != "" && string(k) == prefix+after {
			k, _ = c.Next()
		}
		for ; k != nil && bytes.HasPrefix(k, []byte(prefix)) && len(names) != n; k, _ = c.Next() {
			names = append(names, string(k[len(prefix):]))
		}
		return nil
	})
	return names, err
}

// Exists implements depot.Reader.
func (d *Directory) Exists(ctx context.Context, repository string) (exists bool, err error) {
	err = d.view(ctx, func(tx *bolt.Tx) error {
		exists = tx.Bucket(bRepositories).Get([]byte(repository)) != nil
		return nil
	})
	return exists, err
}

// Repositories implements depot.Reader.
func (d *Directory) Repositories(ctx context.Context, after string, n int) ([]string, error) {
	return d.list(ctx, bRepositories, "", after, n)
}

// Tags implements depot.Reader.
func (d *Directory) Tags(ctx context.Context, repository, after string, n int) ([]string, error) {
	return d.list(ctx, bTags, repository+"\x00", after, n)
}

// Tag implements depot.Reader.
func (d *Directory) Tag(ctx context.Context, repository, name string) (t depot.Tag, err error) {
	err = d.view(ctx, func(tx *bolt.Tx) error {
		var ok bool
		if t, ok, err = getTag(tx, repository, name); err == nil && !ok {
			err = depot.ManifestUnknown(repository, name)
		}
		return err
	})
	return t, err
}

// Manifests implements depot.Reader.
func (d *Directory) Manifests(ctx context.Context, repository, after string, n int) ([]digest.Digest, error) {
	names, err := d.list(ctx, bManifests, repository+"\x00", after, n)
	list := make([]digest.Digest, len(names))
	for i, name := range names {
		list[i] = digest.Digest(name)
	}
	return list, err
}

// Referrers implements depot.Reader.
func (d *Directory) Referrers(ctx context.Context, repository string, subject digest.Digest, after string, n int) (list []depot.Manifest, err error) {
	if err := depot.CheckBoth(repository, subject); err != nil {
		return nil, err
	}
	names, err := d.list(ctx, bReferrers, repository+"\x00"+string(subject)+"\x00", after, n)
	if err != nil {
		return nil, err
	}
	err = d.view(ctx, func(tx *bolt.Tx) error {
		for _, name := range names {
			m, ok, err := getManifest(tx, repository, digest.Digest(name))
			if err != nil {
				return err
			}
			if ok { // else it was deleted since
				list = append(list, m)
			}
		}
		return nil
	})
	return list, err
}

// Record implements depot.Records.
func (d *Directory) Record(ctx context.Context, name string) (value []byte, err error) {
	err = d.view(ctx, func(tx *bolt.Tx) error {
		found := tx.Bucket(bRecords).Get([]byte(name))
		if found == nil {
			return errs.NotFound("there is no record %s", name)
		}
		value = bytes.Clone(found)
		return nil
	})
	return value, err
}

// maxRecord bounds a record, in bytes.
const maxRecord = 64 << 10

// PutRecord implements depot.Records.
func (d *Directory) PutRecord(_ context.Context, name string, value []byte) error {
	if err := depot.CheckKey(name); err != nil {
		return err
	}
	if len(value) > maxRecord {
		return errs.InvalidArgument("record %s has %d bytes, %d are the most", name, len(value), maxRecord)
	}
	return d.update(func(tx *bolt.Tx) error { return tx.Bucket(bRecords).Put([]byte(name), value) })
}

// DeleteRecord implements depot.Records.
func (d *Directory) DeleteRecord(_ context.Context, name string) error {
	return d.update(func(tx *bolt.Tx) error { return tx.Bucket(bRecords).Delete([]byte(name)) })
}

// RecordKeys implements depot.Records.
func (d *Directory) RecordKeys(ctx context.Context, prefix, after string, n int) ([]string, error) {
	// after is a whole key; list wants what follows the prefix.
	if after != "" && !strings.HasPrefix(after, prefix) {
		if after > prefix {
			return nil, nil
		}
		after = ""
	}
	names, err := d.list(ctx, bRecords, prefix, strings.TrimPrefix(after, prefix), n)
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names, err
}
