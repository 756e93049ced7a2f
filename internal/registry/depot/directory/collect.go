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

// pageOfBlobs is how many links one transaction of Blobs looks at: a reader that
// stays keeps the database from using its free pages again.
const pageOfBlobs = 1000

// Blobs implements depot.Collectable.
func (d *Directory) Blobs(ctx context.Context, f func(repository string, blob depot.Info) error) error {
	type link struct {
		repository string
		info       depot.Info
	}
	var last []byte
	for {
		var page []link
		err := d.view(ctx, func(tx *bolt.Tx) error {
			c := tx.Bucket(bLinks).Cursor()
			k, _ := c.Seek(last)
			if last != nil && bytes.Equal(k, last) {
				k, _ = c.Next()
			}
			for ; k != nil && len(page) < pageOfBlobs; k, _ = c.Next() {
				repository, dgst, _ := bytes.Cut(k, []byte{0})
				info, err := contentInfo(digest.Digest(dgst), tx.Bucket(bContent).Get(dgst))
				if err != nil {
					return err
				}
				page = append(page, link{string(repository), info})
				last = append(last[:0], k...)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, l := range page {
			if err := f(l.repository, l.info); err != nil {
				return err
			}
		}
		if len(page) < pageOfBlobs {
			return nil
		}
	}
}

// Drop implements depot.Collectable.
func (d *Directory) Drop(_ context.Context, repository string, dgst digest.Digest, before time.Time) (dropped bool, freed int64, err error) {
	if err := checked(repository, dgst); err != nil {
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
	if err := checked(repository, dgst); err != nil {
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
