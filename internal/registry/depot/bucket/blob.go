package bucket

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	minio "github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// linked finds a blob the repository has.
func (b *Bucket) linked(ctx context.Context, repository string, dgst digest.Digest) (depot.Info, error) {
	data, object, ok, err := b.get(ctx, join("links", repository, string(dgst)))
	if err != nil {
		return depot.Info{}, err
	}
	if !ok {
		return depot.Info{}, depot.BlobUnknown(repository, dgst)
	}
	size, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		return depot.Info{}, errs.System("the link to blob %s is damaged: %v", dgst, err)
	}
	return depot.Info{Digest: dgst, Size: size, Time: object.LastModified}, nil
}

// Stat implements depot.Reader.
func (b *Bucket) Stat(ctx context.Context, repository string, dgst digest.Digest) (depot.Info, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return depot.Info{}, err
	}
	var info depot.Info
	err := b.holds.Look(ctx, repository, dgst, func() (err error) {
		info, err = b.linked(ctx, repository, dgst)
		return err
	})
	return info, err
}

// Open implements depot.Reader.
func (b *Bucket) Open(ctx context.Context, repository string, dgst digest.Digest) (io.ReadSeekCloser, depot.Info, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return nil, depot.Info{}, err
	}
	info, err := b.linked(ctx, repository, dgst)
	if err != nil {
		return nil, info, err
	}
	o := &object{ctx: ctx, b: b, key: blobKey(dgst), size: info.Size}
	// Opened at once, so that it stays readable when it is deleted.
	if err := o.open(); err != nil {
		return nil, info, err
	}
	return o, info, nil
}

// object reads a blob. Where it is sought, a new request begins with the next
// Read.
type object struct {
	ctx  context.Context
	b    *Bucket
	key  string
	size int64
	at   int64         // where the next Read reads
	body io.ReadCloser // from at on; nil when none is open
}

func (o *object) open() error {
	if o.size == 0 {
		return nil
	}
	var opts minio.GetObjectOptions
	if o.at > 0 {
		if err := opts.SetRange(o.at, 0); err != nil {
			return err
		}
	}
	body, _, _, err := o.b.core.GetObject(o.ctx, o.b.bucket, o.b.prefix+o.key, opts)
	if absent(err) {
		return errs.System("%s has been removed from the bucket behind the registry's back", o.key)
	}
	if err != nil {
		return explain(err)
	}
	o.body = body
	return nil
}

func (o *object) Read(p []byte) (int, error) {
	if o.at >= o.size {
		return 0, io.EOF
	}
	if o.body == nil {
		if err := o.open(); err != nil {
			return 0, err
		}
	}
	n, err := o.body.Read(p)
	o.at += int64(n)
	if err == io.EOF && o.at < o.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	// The size is asked for by seeking to the end and back: that costs no
	// request as long as nothing is read in between.
	if o.body != nil && offset != o.at && offset < o.size {
		o.body.Close()
		o.body = nil
	}
	if o.body != nil && offset >= o.size {
		return offset, nil
	}
	o.at = offset
	return offset, nil
}

func (o *object) Close() error {
	if o.body == nil {
		return nil
	}
	return o.body.Close()
}

// link gives the repository a blob whose bytes are there. The caller has the
// lock of the digest.
func (b *Bucket) link(ctx context.Context, repository string, info depot.Info) error {
	birth := &b.births[stripe(repository)]
	birth.Lock()
	defer birth.Unlock()
	if err := b.ensure(ctx, repository); err != nil {
		return err
	}
	if err := b.put(ctx, join("holders", string(info.Digest), repository), nil); err != nil {
		return err
	}
	return b.put(ctx, join("links", repository, string(info.Digest)), strconv.AppendInt(nil, info.Size, 10))
}

// Mount implements depot.Depot.
func (b *Bucket) Mount(ctx context.Context, from, repository string, dgst digest.Digest) (depot.Info, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return depot.Info{}, err
	}
	if err := depot.CheckRepository(from); err != nil {
		return depot.Info{}, err
	}
	if err := b.holds.Hold(ctx, repository, dgst); err != nil {
		return depot.Info{}, err
	}
	lock := b.digestLock(dgst)
	lock.Lock()
	defer lock.Unlock()
	info, err := b.linked(ctx, from, dgst)
	if err != nil {
		return info, err
	}
	return info, b.link(ctx, repository, info)
}

// Holders implements depot.Depot.
func (b *Bucket) Holders(ctx context.Context, dgst digest.Digest, after string, n int) ([]string, error) {
	if err := depot.CheckDigest(dgst); err != nil {
		return nil, err
	}
	return b.list(ctx, join("holders", string(dgst), ""), "", after, n)
}

// DeleteBlob implements depot.Depot.
func (b *Bucket) DeleteBlob(ctx context.Context, repository string, dgst digest.Digest) error {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return err
	}
	lock := b.lockOf(repository)
	lock.Lock()
	defer lock.Unlock()
	info, err := b.linked(ctx, repository, dgst)
	if err != nil {
		return err
	}
	by, err := b.usedBy(ctx, repository, dgst)
	if err != nil {
		return err
	}
	if by != "" {
		return errs.Conflict("blob %s is a part of manifest %s of repository %s: delete that first", dgst, by, repository)
	}
	_, err = b.unlink(ctx, repository, info)
	return err
}

// usedBy is a manifest of the repository that names the digest, or "". The
// caller has the repository's lock, so a marker without its manifest is a
// leftover, and removed.
func (b *Bucket) usedBy(ctx context.Context, repository string, dgst digest.Digest) (by digest.Digest, err error) {
	prefix := join("uses", repository, string(dgst), "")
	err = b.each(ctx, prefix, "", 10, func(manifest string, _ minio.ObjectInfo) error {
		_, ok, err := b.stat(ctx, join("manifests", repository, manifest))
		if err != nil {
			return err
		}
		if ok {
			by = digest.Digest(manifest)
			return errEnough
		}
		return b.remove(ctx, prefix+manifest)
	})
	return by, err
}

// unlink takes a blob from the repository, and removes the bytes when nobody
// has it any longer. It returns how many that freed.
func (b *Bucket) unlink(ctx context.Context, repository string, info depot.Info) (int64, error) {
	lock := b.digestLock(info.Digest)
	lock.Lock()
	defer lock.Unlock()
	dgst := string(info.Digest)
	if err := b.remove(ctx, join("links", repository, dgst), join("holders", dgst, repository)); err != nil {
		return 0, err
	}
	held, err := b.anyWith(ctx, join("holders", dgst, ""))
	if err != nil || held {
		return 0, err
	}
	return info.Size, b.remove(ctx, blobKey(info.Digest))
}

// recordKey ends the key, as one may begin another.
func recordKey(name string) string { return "records/" + name + "!" }

const maxRecord = 64 << 10

// Record implements depot.Records.
func (b *Bucket) Record(ctx context.Context, name string) ([]byte, error) {
	if err := depot.CheckKey(name); err != nil {
		return nil, err
	}
	data, _, ok, err := b.get(ctx, recordKey(name))
	if err == nil && !ok {
		err = errs.NotFound("there is no record %s", name)
	}
	return data, err
}

// PutRecord implements depot.Records.
func (b *Bucket) PutRecord(ctx context.Context, name string, value []byte) error {
	if err := depot.CheckKey(name); err != nil {
		return err
	}
	if len(value) > maxRecord {
		return errs.InvalidArgument("record %s has %d bytes, %d are the most", name, len(value), maxRecord)
	}
	return b.put(ctx, recordKey(name), value)
}

// DeleteRecord implements depot.Records.
func (b *Bucket) DeleteRecord(ctx context.Context, name string) error {
	return b.remove(ctx, recordKey(name))
}

// RecordKeys implements depot.Records.
func (b *Bucket) RecordKeys(ctx context.Context, prefix, after string, n int) ([]string, error) {
	if after != "" && !strings.HasPrefix(after, prefix) {
		if after > prefix {
			return nil, nil
		}
		after = ""
	}
	names, err := b.list(ctx, "records/"+prefix, "!", strings.TrimPrefix(after, prefix), n)
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names, err
}
