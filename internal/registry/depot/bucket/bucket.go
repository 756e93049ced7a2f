// Package bucket is a depot in a bucket of an S3-compatible server.
//
// Everything is in the bucket and nothing beside it: the machine that serves it
// may be lost. What relates things to one another is in the keys, so that lists
// are the server's own listing, which is in the order of bytes; "!" ends a
// repository's name because it sorts before everything a name is made of.
//
//	blobs/ALGORITHM/HEX              the bytes of a blob
//	links/REPOSITORY!DIGEST          the repository has the blob; the size in bytes
//	holders/DIGEST!REPOSITORY        the same the other way round
//	manifests/REPOSITORY!DIGEST      what is known of a manifest, a newline, its bytes
//	uses/REPOSITORY!DIGEST!MANIFEST  the manifest names the digest
//	tags/REPOSITORY!TAG              what the tag names
//	tagged/REPOSITORY!DIGEST!TAG     the same the other way round
//	referrers/REPOSITORY!SUBJECT!MANIFEST
//	repositories/REPOSITORY!         there is such a repository
//	records/KEY!
//	uploads/ID.json .tail .data      uploads: state, bytes short of a part, multipart
//	owner                            the process that writes to the bucket (lease.go)
//
// A bucket has no transactions. What is named is written before what names it,
// and removed after it: a crash leaves a marker that leads nowhere, which is
// seen through when it is met (usedBy) and goes with Sweep. Within the process,
// which is the only one that writes to the bucket (lease.go), a lock for the
// repository keeps a manifest's check and write apart from the removal of what it
// names, and one for the digest keeps the removal of bytes apart from a new link
// to them. A third one keeps the birth of a repository apart from its end. They
// are taken in this order and are striped.
package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	minio "github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Options says where the bucket is.
type Options struct {
	Endpoint string // host and port of the server
	Bucket   string // exists already
	Prefix   string // what all keys begin with; may be empty
	Region   string // "" lets the server say it
	// AccessKey and SecretKey sign the requests. Without them the usual
	// variables (AWS_ACCESS_KEY_ID, …) and the machine's role are asked.
	AccessKey, SecretKey string
	Insecure             bool // plain HTTP
	// PartSize is the size of an upload's parts in bytes; 0 means 16 MiB. An
	// upload that is being received has one in memory. S3 allows no less
	// than 5 MiB and 10,000 of them for one blob.
	PartSize int64
	// Owner is a name this process has to itself, and had before a restart:
	// by it the bucket is had again at once after a crash. "" is a new one.
	Owner string
	// Lease is how long another process waits for this one when it is not
	// heard of; 0 means 30 seconds.
	Lease time.Duration
	// ReadOnly opens the bucket also with a key that may not write to it.
	ReadOnly bool
	// Transport makes the requests; nil means the default one.
	Transport http.RoundTripper
}

// Bucket is a depot; see the package comment.
type Bucket struct {
	core     *minio.Core
	bucket   string
	prefix   string
	partSize int64
	// copyLimit is up to which size, in bytes, the server copies an object
	// with one request.
	copyLimit int64
	holds     *depot.Holds
	lease     *lease
	parts     sync.Pool

	repositories [64]sync.RWMutex
	digests      [64]sync.Mutex
	births       [64]sync.Mutex

	knownMu sync.Mutex // guards known
	known   map[string]bool
}

var _ depot.Depot = (*Bucket)(nil)

// Open opens the depot in a bucket. It fails with ErrNotFound when there is no
// such bucket, with ErrUnavailable when the server does not answer, and with
// ErrConflict when another process has it open.
func Open(ctx context.Context, o Options) (*Bucket, error) {
	cred := credentials.NewStaticV4(o.AccessKey, o.SecretKey, "")
	if o.AccessKey == "" {
		cred = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.IAM{}})
	}
	core, err := minio.NewCore(o.Endpoint, &minio.Options{Creds: cred, Secure: !o.Insecure, Region: o.Region, Transport: o.Transport})
	if err != nil {
		return nil, errs.InvalidArgument("cannot use the S3 server %q: %w", o.Endpoint, err)
	}
	exists, err := core.BucketExists(ctx, o.Bucket)
	if err != nil {
		return nil, fmt.Errorf("cannot open bucket %s of %s: %w", o.Bucket, o.Endpoint, explain(err))
	}
	if !exists {
		return nil, errs.NotFound("the S3 server %s has no bucket %s", o.Endpoint, o.Bucket)
	}
	if o.PartSize == 0 {
		o.PartSize = 16 << 20
	}
	b := &Bucket{
		core: core, bucket: o.Bucket, prefix: o.Prefix, partSize: o.PartSize, copyLimit: 5 << 30,
		holds: depot.NewHolds(), known: map[string]bool{},
	}
	if o.Owner == "" {
		o.Owner = rand.Text()
	}
	if o.Lease == 0 {
		o.Lease = defaultLease
	}
	if err := b.claim(ctx, o); err != nil {
		return nil, err
	}
	b.parts.New = func() any { p := make([]byte, 0, b.partSize); return &p }
	return b, nil
}

// Close implements depot.Depot. It may be called twice.
func (b *Bucket) Close() error {
	b.release()
	return nil
}

// explain gives an error of the server its class.
func explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	response := minio.ToErrorResponse(err)
	switch {
	case response.Code == "XMinioStorageFull" || response.Code == "QuotaExceeded" || response.StatusCode == http.StatusInsufficientStorage:
		return fmt.Errorf("the S3 server: %w: %w", err, syscall.ENOSPC)
	case response.StatusCode == http.StatusForbidden:
		return errs.System("the S3 server refuses the registry's key: %w", err)
	case response.StatusCode == 0 || response.StatusCode >= 500 || response.Code == "SlowDown":
		return errs.Unavailable("the S3 server does not answer: %w", err)
	}
	return err
}

// absent tells that there is no such object.
func absent(err error) bool {
	r := minio.ToErrorResponse(err)
	return err != nil && (r.Code == "NoSuchKey" || r.Code == "NoSuchUpload" || r.StatusCode == http.StatusNotFound)
}

func stripe(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32() % 64
}

func (b *Bucket) lockOf(repository string) *sync.RWMutex { return &b.repositories[stripe(repository)] }
func (b *Bucket) digestLock(dgst digest.Digest) *sync.Mutex {
	return &b.digests[stripe(string(dgst))]
}

func blobKey(dgst digest.Digest) string {
	return "blobs/" + dgst.Algorithm().String() + "/" + dgst.Encoded()
}

// join is the key of a relation.
func join(kind string, parts ...string) string { return kind + "/" + strings.Join(parts, "!") }

// put writes a small object.
func (b *Bucket) put(ctx context.Context, key string, data []byte) error {
	if err := b.mine(ctx); err != nil {
		return err
	}
	_, err := b.core.Client.PutObject(ctx, b.bucket, b.prefix+key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{DisableMultipart: true})
	return explain(err)
}

// get reads a small object; ok is false when there is none.
func (b *Bucket) get(ctx context.Context, key string) (data []byte, info minio.ObjectInfo, ok bool, err error) {
	body, info, _, err := b.core.GetObject(ctx, b.bucket, b.prefix+key, minio.GetObjectOptions{})
	if absent(err) {
		return nil, info, false, nil
	}
	if err != nil {
		return nil, info, false, explain(err)
	}
	defer body.Close()
	data, err = io.ReadAll(body)
	return data, info, err == nil, explain(err)
}

// stat looks at an object; ok is false when there is none.
func (b *Bucket) stat(ctx context.Context, key string) (info minio.ObjectInfo, ok bool, err error) {
	info, err = b.core.Client.StatObject(ctx, b.bucket, b.prefix+key, minio.StatObjectOptions{})
	if absent(err) {
		return info, false, nil
	}
	return info, err == nil, explain(err)
}

// remove deletes objects; one that is not there is no error.
func (b *Bucket) remove(ctx context.Context, keys ...string) error {
	if err := b.mine(ctx); err != nil {
		return err
	}
	for _, key := range keys {
		err := b.core.Client.RemoveObject(ctx, b.bucket, b.prefix+key, minio.RemoveObjectOptions{})
		if err != nil && !absent(err) {
			return explain(err)
		}
	}
	return nil
}

// errEnough ends a listing.
var errEnough = errors.New("enough")

// each calls f with what follows prefix in every key, from after on.
func (b *Bucket) each(ctx context.Context, prefix, after string, page int, f func(rest string, o minio.ObjectInfo) error) error {
	start := ""
	if after != "" {
		start = b.prefix + prefix + after
	}
	token := ""
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		result, err := b.core.ListObjectsV2(b.bucket, b.prefix+prefix, start, token, "", page)
		if err != nil {
			return explain(err)
		}
		for _, o := range result.Contents {
			err := f(strings.TrimPrefix(o.Key, b.prefix+prefix), o)
			if errors.Is(err, errEnough) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if !result.IsTruncated {
			return nil
		}
		token = result.NextContinuationToken
	}
}

// list returns what follows prefix in the keys; suffix ends each of them.
func (b *Bucket) list(ctx context.Context, prefix, suffix, after string, n int) (names []string, err error) {
	if n == 0 {
		return nil, nil
	}
	page := 1000
	if n > 0 {
		page = min(n, page)
	}
	if after != "" {
		after += suffix
	}
	err = b.each(ctx, prefix, after, page, func(rest string, _ minio.ObjectInfo) error {
		names = append(names, strings.TrimSuffix(rest, suffix))
		if len(names) == n {
			return errEnough
		}
		return nil
	})
	return names, err
}

// anyWith tells whether a key begins with the prefix.
func (b *Bucket) anyWith(ctx context.Context, prefix string) (bool, error) {
	names, err := b.list(ctx, prefix, "", "", 1)
	return len(names) > 0, err
}

// ensure makes the repository exist.
func (b *Bucket) ensure(ctx context.Context, repository string) error {
	b.knownMu.Lock()
	known := b.known[repository]
	b.knownMu.Unlock()
	if known {
		return nil
	}
	key := join("repositories", repository, "")
	_, ok, err := b.stat(ctx, key)
	if err == nil && !ok {
		err = b.put(ctx, key, nil)
	}
	if err != nil {
		return err
	}
	const most = 10_000
	b.knownMu.Lock()
	defer b.knownMu.Unlock()
	if len(b.known) >= most {
		clear(b.known)
	}
	b.known[repository] = true
	return nil
}

func (b *Bucket) forget(repository string) {
	b.knownMu.Lock()
	delete(b.known, repository)
	b.knownMu.Unlock()
}
