package directory

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// inline is up to which size, in bytes, content lives in the database. A leaf
// of the tree with such a value is written anew with each neighbour that comes,
// which is still cheaper than a file of its own, up to about here.
const inline = 16 << 10

// A record of content is a byte that says where it is, its size, the time it
// was stored in nanoseconds, and the bytes themselves when they are here.
const (
	inFile       = 'f'
	inDatabase   = 'd'
	contentFixed = 1 + 8 + 8
)

func contentRecord(where byte, size int64, data []byte) []byte {
	b := make([]byte, contentFixed, contentFixed+len(data))
	b[0] = where
	binary.BigEndian.PutUint64(b[1:], uint64(size))
	binary.BigEndian.PutUint64(b[9:], uint64(time.Now().UnixNano()))
	return append(b, data...)
}

func contentInfo(dgst digest.Digest, record []byte) (depot.Info, error) {
	if len(record) < contentFixed {
		return depot.Info{}, errs.System("the record of blob %s is damaged", dgst)
	}
	return depot.Info{
		Digest: dgst,
		Size:   int64(binary.BigEndian.Uint64(record[1:])),
		Time:   time.Unix(0, int64(binary.BigEndian.Uint64(record[9:]))),
	}, nil
}

func key(parts ...string) []byte {
	n := len(parts) - 1
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n)
	for i, p := range parts {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, p...)
	}
	return b
}

// What a repository holds content as.
const (
	asBlob     = "b"
	asManifest = "m"
)

// any tells whether a key begins with the prefix.
func anyWith(tx *bolt.Tx, bucket, prefix []byte) bool {
	k, _ := tx.Bucket(bucket).Cursor().Seek(prefix)
	return bytes.HasPrefix(k, prefix)
}

// Stat implements depot.Reader.
func (d *Directory) Stat(ctx context.Context, repository string, dgst digest.Digest) (info depot.Info, err error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return info, err
	}
	err = d.holds.Look(ctx, repository, dgst, func() error {
		return d.view(ctx, func(tx *bolt.Tx) error {
			record := linked(tx, repository, dgst)
			if record == nil {
				return depot.BlobUnknown(repository, dgst)
			}
			info, err = contentInfo(dgst, record)
			return err
		})
	})
	return info, err
}

// linked is the record of a blob the repository has, or nil.
func linked(tx *bolt.Tx, repository string, dgst digest.Digest) []byte {
	if tx.Bucket(bLinks).Get(key(repository, string(dgst))) == nil {
		return nil
	}
	return tx.Bucket(bContent).Get([]byte(dgst))
}

// memory is content out of the database.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// Open implements depot.Reader.
func (d *Directory) Open(ctx context.Context, repository string, dgst digest.Digest) (content io.ReadSeekCloser, info depot.Info, err error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return nil, info, err
	}
	err = d.view(ctx, func(tx *bolt.Tx) error {
		record := linked(tx, repository, dgst)
		if record == nil {
			return depot.BlobUnknown(repository, dgst)
		}
		if info, err = contentInfo(dgst, record); err != nil {
			return err
		}
		if record[0] == inDatabase {
			content = memory{bytes.NewReader(bytes.Clone(record[contentFixed:]))}
			return nil
		}
		f, err := d.open(dgst)
		if err != nil {
			return err
		}
		content = f
		return nil
	})
	if err != nil {
		return nil, info, err
	}
	return content, info, nil
}

// open opens the file of a blob that is recorded. Within a transaction it is
// there: it goes after the record.
func (d *Directory) open(dgst digest.Digest) (*os.File, error) {
	f, err := os.Open(d.path(dgst))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.System("blob %s has been removed from the disk behind the registry's back", dgst)
	}
	return f, err
}

// adopt makes what a file or data holds content, and a blob of the repository.
// The file is synced; it is removed when that is done.
func (d *Directory) adopt(ctx context.Context, repository string, info depot.Info, file string, data []byte) (depot.Info, error) {
	// From here on it is not collected in this repository.
	if err := d.holds.Hold(ctx, repository, info.Digest); err != nil {
		return info, err
	}
	where, placed := byte(inDatabase), false
	if file != "" {
		where = inFile
		lock := d.stripe(info.Digest)
		lock.Lock()
		defer lock.Unlock()
		var err error
		if placed, err = d.settle(file, info.Digest); err != nil {
			return info, err
		}
	}
	err := d.update(func(tx *bolt.Tx) (err error) {
		record := tx.Bucket(bContent).Get([]byte(info.Digest))
		if record == nil {
			record = contentRecord(where, info.Size, data)
			if err := tx.Bucket(bContent).Put([]byte(info.Digest), record); err != nil {
				return err
			}
		}
		if info, err = contentInfo(info.Digest, record); err != nil {
			return err
		}
		return link(tx, repository, info.Digest)
	})
	if err != nil {
		if placed {
			os.Remove(d.path(info.Digest)) // else Sweep does
		}
		return info, err
	}
	if file != "" {
		err = os.Remove(file)
	}
	return info, err
}

// settle places the file unless the blob is there, and tells whether it did.
func (d *Directory) settle(file string, dgst digest.Digest) (placed bool, err error) {
	known := false
	if err := usual(d.db.View(func(tx *bolt.Tx) error {
		known = tx.Bucket(bContent).Get([]byte(dgst)) != nil
		return nil
	})); err != nil || known {
		return false, err
	}
	return true, d.place(file, dgst)
}

// link gives the repository a blob whose content is recorded.
func link(tx *bolt.Tx, repository string, dgst digest.Digest) error {
	if err := ensure(tx, repository); err != nil {
		return err
	}
	if err := tx.Bucket(bLinks).Put(key(repository, string(dgst)), stamp()); err != nil {
		return err
	}
	return tx.Bucket(bHolders).Put(key(string(dgst), repository, asBlob), nil)
}

func stamp() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
}

// ensure makes the repository exist.
func ensure(tx *bolt.Tx, repository string) error {
	b := tx.Bucket(bRepositories)
	if b.Get([]byte(repository)) != nil {
		return nil
	}
	return b.Put([]byte(repository), stamp())
}

// Mount implements depot.Depot.
func (d *Directory) Mount(ctx context.Context, from, repository string, dgst digest.Digest) (info depot.Info, err error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return info, err
	}
	if err := depot.CheckRepository(from); err != nil {
		return info, err
	}
	if err := d.holds.Hold(ctx, repository, dgst); err != nil {
		return info, err
	}
	// Most mounts that cannot be are found out without a transaction.
	there := false
	err = d.view(ctx, func(tx *bolt.Tx) error {
		if linked(tx, from, dgst) == nil {
			return depot.BlobUnknown(from, dgst)
		}
		record := linked(tx, repository, dgst)
		if there = record != nil; there {
			info, err = contentInfo(dgst, record)
		}
		return err
	})
	if err != nil || there {
		return info, err
	}
	err = d.update(func(tx *bolt.Tx) error {
		record := linked(tx, from, dgst)
		if record == nil {
			return depot.BlobUnknown(from, dgst)
		}
		if info, err = contentInfo(dgst, record); err != nil {
			return err
		}
		return link(tx, repository, dgst)
	})
	return info, err
}

// Holders implements depot.Depot.
func (d *Directory) Holders(ctx context.Context, dgst digest.Digest, after string, n int) (names []string, err error) {
	if err := depot.CheckDigest(dgst); err != nil {
		return nil, err
	}
	err = d.view(ctx, func(tx *bolt.Tx) error {
		prefix := key(string(dgst), "")
		c := tx.Bucket(bHolders).Cursor()
		seek := prefix
		if after != "" {
			seek = key(string(dgst), after, "\xff")
		}
		for k, _ := c.Seek(seek); bytes.HasPrefix(k, prefix) && len(names) != n; k, _ = c.Next() {
			name, as, _ := bytes.Cut(k[len(prefix):], []byte{0})
			if string(as) == asBlob {
				names = append(names, string(name))
			}
		}
		return nil
	})
	return names, err
}

// DeleteBlob implements depot.Depot.
func (d *Directory) DeleteBlob(_ context.Context, repository string, dgst digest.Digest) error {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return err
	}
	_, err := d.unlink(repository, dgst, func(tx *bolt.Tx) error {
		if linked(tx, repository, dgst) == nil {
			return depot.BlobUnknown(repository, dgst)
		}
		if by := usedBy(tx, repository, dgst); by != "" {
			return errs.Conflict("blob %s is a part of manifest %s of repository %s: delete that first", dgst, by, repository)
		}
		return nil
	})
	return err
}

// usedBy is a manifest of the repository that names the digest, or "".
func usedBy(tx *bolt.Tx, repository string, dgst digest.Digest) digest.Digest {
	prefix := key(repository, string(dgst), "")
	k, _ := tx.Bucket(bUses).Cursor().Seek(prefix)
	if !bytes.HasPrefix(k, prefix) {
		return ""
	}
	return digest.Digest(k[len(prefix):])
}

// unlink takes a blob from the repository if allowed agrees, and removes the
// content when nobody has it any longer. It returns the bytes that were freed.
func (d *Directory) unlink(repository string, dgst digest.Digest, allowed func(tx *bolt.Tx) error) (freed int64, err error) {
	lock := d.stripe(dgst)
	lock.Lock()
	defer lock.Unlock()
	file := false
	err = d.update(func(tx *bolt.Tx) error {
		freed, file = 0, false
		if err := allowed(tx); err != nil {
			return err
		}
		if err := tx.Bucket(bLinks).Delete(key(repository, string(dgst))); err != nil {
			return err
		}
		freed, file, err = release(tx, repository, dgst, asBlob)
		return err
	})
	if err != nil {
		return 0, err
	}
	if file {
		err = os.Remove(d.path(dgst))
	}
	return freed, err
}

// release ends that the repository holds content, and forgets the content when
// nobody else does. It tells the bytes freed and whether they are in a file,
// which the caller removes after the transaction, holding the stripe.
func release(tx *bolt.Tx, repository string, dgst digest.Digest, as string) (freed int64, file bool, err error) {
	if err := tx.Bucket(bHolders).Delete(key(string(dgst), repository, as)); err != nil {
		return 0, false, err
	}
	if anyWith(tx, bHolders, key(string(dgst), "")) {
		return 0, false, nil
	}
	record := tx.Bucket(bContent).Get([]byte(dgst))
	if record == nil {
		return 0, false, nil
	}
	info, err := contentInfo(dgst, record)
	if err != nil {
		return 0, false, err
	}
	file = record[0] == inFile
	return info.Size, file, tx.Bucket(bContent).Delete([]byte(dgst))
}
