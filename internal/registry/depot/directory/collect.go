package directory

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// errKeep ends a transaction that found a reason to keep what it was to drop.
var errKeep = errors.New("kept")

// kept turns errKeep into an answer.
func kept(err error) (bool, error) {
	if errors.Is(err, errKeep) {
		return false, nil
	}
	return err == nil, err
}

// page is how many keys one transaction of Graph and Blobs looks at: a reader
// that stays keeps the database from using its free pages again.
const page = 1000

// each calls f within transactions for every key of the repository in a bucket,
// and then, outside of them, what f returned.
func (d *Directory) each(ctx context.Context, bucket []byte, repository string, f func(tx *bolt.Tx, dgst digest.Digest) (func() error, error)) error {
	prefix := key(repository, "")
	for last, more := prefix, true; more; {
		var found []func() error
		err := d.view(ctx, func(tx *bolt.Tx) error {
			n := 0
			c := tx.Bucket(bucket).Cursor()
			k, _ := c.Seek(last)
			if bytes.Equal(k, last) {
				k, _ = c.Next()
			}
			for ; bytes.HasPrefix(k, prefix) && n < page; k, _ = c.Next() {
				then, err := f(tx, digest.Digest(k[len(prefix):]))
				if err != nil {
					return err
				}
				found, last, n = append(found, then), bytes.Clone(k), n+1
			}
			more = n == page
			return nil
		})
		if err != nil {
			return err
		}
		for _, then := range found {
			if err := then(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Graph implements depot.Collectable.
func (d *Directory) Graph(ctx context.Context, repository string, f func(m depot.Manifest, tagged bool) error) error {
	return d.each(ctx, bManifests, repository, func(tx *bolt.Tx, dgst digest.Digest) (func() error, error) {
		m, _, err := getManifest(tx, repository, dgst)
		tagged := anyWith(tx, bTagged, key(repository, string(dgst), ""))
		return func() error { return f(m, tagged) }, err
	})
}

// Blobs implements depot.Collectable.
func (d *Directory) Blobs(ctx context.Context, repository string, f func(depot.Info) error) error {
	return d.each(ctx, bLinks, repository, func(tx *bolt.Tx, dgst digest.Digest) (func() error, error) {
		info, err := contentInfo(dgst, tx.Bucket(bContent).Get([]byte(dgst)))
		return func() error { return f(info) }, err
	})
}

// Drop implements depot.Collectable.
func (d *Directory) Drop(_ context.Context, repository string, dgst digest.Digest, before time.Time) (dropped bool, freed int64, err error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return false, 0, err
	}
	done := d.holds.Dropping(repository, dgst, before)
	if done == nil {
		return false, 0, nil
	}
	defer done()
	freed, err = d.unlink(repository, dgst, func(tx *bolt.Tx) error {
		if linked(tx, repository, dgst) == nil || usedBy(tx, repository, dgst) != "" {
			return errKeep
		}
		return nil
	})
	dropped, err = kept(err)
	return dropped, freed, err
}

// DropManifest implements depot.Collectable.
func (d *Directory) DropManifest(_ context.Context, repository string, dgst digest.Digest, before time.Time) (bool, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return false, err
	}
	done := d.holds.Dropping(repository, dgst, before)
	if done == nil {
		return false, nil
	}
	defer done()
	return kept(d.removeManifest(repository, dgst, func(tx *bolt.Tx, m depot.Manifest, there bool) error {
		if !there || !m.Pushed.Before(before) || usedBy(tx, repository, dgst) != "" ||
			anyWith(tx, bTagged, key(repository, string(dgst), "")) {
			return errKeep
		}
		return nil
	}))
}

// DropTag implements depot.Collectable.
func (d *Directory) DropTag(_ context.Context, repository string, tag depot.Tag) (bool, error) {
	return kept(d.update(func(tx *bolt.Tx) error {
		now, ok, err := getTag(tx, repository, tag.Name)
		if err != nil {
			return err
		}
		if !ok || now.Digest != tag.Digest || !now.Time.Equal(tag.Time) {
			return errKeep
		}
		return d.untag(tx, repository, tag.Name)
	}))
}

// DropRepository implements depot.Collectable.
func (d *Directory) DropRepository(_ context.Context, repository string, before time.Time) (bool, error) {
	return kept(d.update(func(tx *bolt.Tx) error {
		born := tx.Bucket(bRepositories).Get([]byte(repository))
		if len(born) != 8 || !time.Unix(0, int64(binary.BigEndian.Uint64(born))).Before(before) {
			return errKeep
		}
		prefix := key(repository, "")
		for _, b := range [][]byte{bLinks, bManifests, bTags} {
			if anyWith(tx, b, prefix) {
				return errKeep
			}
		}
		return tx.Bucket(bRepositories).Delete([]byte(repository))
	}))
}

// Sweep implements depot.Collectable: files of blobs that no record knows.
func (d *Directory) Sweep(ctx context.Context, before time.Time) (freed int64, err error) {
	d.holds.Forget(before)
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		shards, err := os.ReadDir(filepath.Join(d.dir, "blobs", algorithm.String()))
		if err != nil {
			return freed, err
		}
		for _, shard := range shards {
			if err := ctx.Err(); err != nil {
				return freed, err
			}
			n, err := d.sweepShard(algorithm, shard.Name(), before)
			freed += n
			if err != nil {
				return freed, err
			}
		}
	}
	return freed, nil
}

func (d *Directory) sweepShard(algorithm digest.Algorithm, shard string, before time.Time) (freed int64, err error) {
	entries, err := os.ReadDir(filepath.Join(d.dir, "blobs", algorithm.String(), shard))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		dgst := digest.NewDigestFromEncoded(algorithm, e.Name())
		if depot.CheckDigest(dgst) != nil {
			continue // not ours
		}
		n, err := d.sweepFile(dgst, before)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// sweepFile removes the file of a blob that is not recorded. An upload that is
// being committed holds the stripe between the rename and the record.
func (d *Directory) sweepFile(dgst digest.Digest, before time.Time) (int64, error) {
	lock := d.stripe(dgst)
	lock.Lock()
	defer lock.Unlock()
	recorded := false
	err := usual(d.db.View(func(tx *bolt.Tx) error {
		record := tx.Bucket(bContent).Get([]byte(dgst))
		recorded = len(record) > 0 && record[0] == inFile
		return nil
	}))
	if err != nil || recorded {
		return 0, err
	}
	fi, err := os.Stat(d.path(dgst))
	if errors.Is(err, os.ErrNotExist) || err == nil && !fi.ModTime().Before(before) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return fi.Size(), os.Remove(d.path(dgst))
}
