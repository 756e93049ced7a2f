package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "crypto/sha256" // the digests a depot accepts
	_ "crypto/sha512"
	"encoding"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	minio "github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// state is what uploads/ID.json holds. Bytes that make a part are in the
// multipart upload, what is short of one in uploads/ID.tail; the hash has seen
// both, so nothing is read again after a restart.
type state struct {
	Repository string           `json:"repository"`
	Algorithm  digest.Algorithm `json:"algorithm"`
	Hash       []byte           `json:"hash,omitempty"`
	Key        string           `json:"key,omitempty"` // of the multipart upload
	Multipart  string           `json:"multipart,omitempty"`
	Parts      []string         `json:"parts,omitempty"` // their entity tags
	InParts    int64            `json:"inParts"`         // bytes
	Tail       int64            `json:"tail"`            // bytes
}

// upload implements depot.Upload.
type upload struct {
	ctx     context.Context
	b       *Bucket
	id      string
	s       state
	hash    hash.Hash
	pending *[]byte // the tail, once it was needed
	// direct is where the parts go: for an upload that is given up when it
	// is cut off, to where the blob will be, which shows only when it is
	// completed; else, as it may be resumed with another digest, to a key of
	// the upload's own.
	direct string
}

func stateKey(id string) string { return "uploads/" + id + ".json" }
func tailKey(id string) string  { return "uploads/" + id + ".tail" }
func dataKey(id string) string  { return "uploads/" + id + ".data" }

// StartUpload implements depot.Depot.
func (b *Bucket) StartUpload(ctx context.Context, repository string, algorithm digest.Algorithm) (depot.Upload, error) {
	if err := depot.CheckRepository(repository); err != nil {
		return nil, err
	}
	if algorithm == "" {
		algorithm = digest.Canonical
	}
	u := b.newUpload(ctx, repository, algorithm)
	return u, u.save(ctx)
}

func (b *Bucket) newUpload(ctx context.Context, repository string, algorithm digest.Algorithm) *upload {
	var r [16]byte
	rand.Read(r[:])
	r[6], r[8] = r[6]&0x0f|0x40, r[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", r[:4], r[4:6], r[6:8], r[8:10], r[10:])
	return &upload{ctx: ctx, b: b, id: id, s: state{Repository: repository, Algorithm: algorithm}, hash: algorithm.Hash()}
}

// Upload implements depot.Depot.
func (b *Bucket) Upload(ctx context.Context, repository, id string) (depot.Upload, error) {
	if len(id) != 36 || strings.Trim(id, "0123456789abcdef-") != "" {
		return nil, depot.UploadUnknown(id)
	}
	data, _, ok, err := b.get(ctx, stateKey(id))
	if err != nil {
		return nil, err
	}
	u := &upload{ctx: ctx, b: b, id: id}
	if !ok || json.Unmarshal(data, &u.s) != nil || u.s.Repository != repository {
		return nil, depot.UploadUnknown(id)
	}
	u.hash = u.s.Algorithm.Hash()
	if len(u.s.Hash) > 0 {
		if err := u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(u.s.Hash); err != nil {
			return nil, errs.System("the state of upload %s is damaged: %v", id, err)
		}
	}
	return u, nil
}

// save writes the state.
func (u *upload) save(ctx context.Context) (err error) {
	if u.s.Hash, err = u.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	data, err := json.Marshal(u.s)
	if err != nil {
		return err
	}
	return u.b.put(ctx, stateKey(u.id), data)
}

func (u *upload) ID() string  { return u.id }
func (u *upload) Size() int64 { return u.s.InParts + u.s.Tail }

// Close implements depot.Upload.
func (u *upload) Close() error {
	if u.pending != nil {
		*u.pending = (*u.pending)[:0]
		u.b.parts.Put(u.pending)
		u.pending = nil
	}
	return nil
}

// Cancel implements depot.Upload.
func (u *upload) Cancel(ctx context.Context) error {
	u.Close()
	return u.b.discard(ctx, u.id, u.s)
}

func (b *Bucket) discard(ctx context.Context, id string, s state) error {
	if s.Multipart != "" {
		err := b.core.AbortMultipartUpload(ctx, b.bucket, b.prefix+s.Key, s.Multipart)
		if err != nil && !absent(err) {
			return explain(err)
		}
	}
	return b.remove(ctx, tailKey(id), dataKey(id), stateKey(id))
}

// ReadFrom implements depot.Upload.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	// What arrived is kept also when it is the request that ended.
	ctx := context.WithoutCancel(u.ctx)
	n, err := u.receive(ctx, r)
	if serr := u.keep(ctx); err == nil {
		err = serr
	}
	return n, err
}

// keep stores what is short of a part, and the state.
func (u *upload) keep(ctx context.Context) error {
	if u.pending != nil && u.s.Tail > 0 {
		if err := u.b.put(ctx, tailKey(u.id), *u.pending); err != nil {
			return err
		}
	}
	return u.save(ctx)
}

// receive takes bytes in; each part that gets full goes to the bucket.
func (u *upload) receive(ctx context.Context, r io.Reader) (n int64, err error) {
	if err := u.load(ctx); err != nil {
		return 0, err
	}
	for {
		p := *u.pending
		if len(p) == cap(p) {
			if err := u.flush(ctx); err != nil {
				return n, err
			}
			p = *u.pending
		}
		got, rerr := r.Read(p[len(p):cap(p)])
		u.hash.Write(p[len(p) : len(p)+got])
		*u.pending = p[:len(p)+got]
		u.s.Tail += int64(got)
		n += int64(got)
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// load fetches the tail.
func (u *upload) load(ctx context.Context) error {
	if u.pending != nil {
		return nil
	}
	u.pending = u.b.parts.Get().(*[]byte)
	if u.s.Tail == 0 {
		return nil
	}
	data, _, ok, err := u.b.get(ctx, tailKey(u.id))
	if err == nil && (!ok || int64(len(data)) < u.s.Tail) {
		err = errs.System("the end of upload %s is missing", u.id)
	}
	if err != nil {
		return err
	}
	*u.pending = append((*u.pending)[:0], data[:u.s.Tail]...)
	return nil
}

// flush makes what is pending a part.
func (u *upload) flush(ctx context.Context) error {
	if u.s.Multipart == "" {
		key := dataKey(u.id)
		if u.direct != "" {
			key = u.direct
		}
		id, err := u.b.core.NewMultipartUpload(ctx, u.b.bucket, u.b.prefix+key, minio.PutObjectOptions{})
		if err != nil {
			return explain(err)
		}
		u.s.Key, u.s.Multipart = key, id
	}
	part, err := u.b.core.PutObjectPart(ctx, u.b.bucket, u.b.prefix+u.s.Key, u.s.Multipart, len(u.s.Parts)+1,
		bytes.NewReader(*u.pending), int64(len(*u.pending)), minio.PutObjectPartOptions{})
	if err != nil {
		return explain(err)
	}
	u.s.Parts = append(u.s.Parts, part.ETag)
	u.s.InParts += int64(len(*u.pending))
	u.s.Tail = 0
	*u.pending = (*u.pending)[:0]
	return u.save(ctx)
}

// Commit implements depot.Upload.
func (u *upload) Commit(ctx context.Context, dgst digest.Digest, last io.Reader) (depot.Info, error) {
	info := depot.Info{Digest: dgst}
	if err := depot.CheckDigest(dgst); err != nil {
		return info, err
	}
	if u.Size() == 0 && u.s.Algorithm != dgst.Algorithm() {
		u.s.Algorithm = dgst.Algorithm()
		u.hash = dgst.Algorithm().Hash()
	}
	keep := context.WithoutCancel(ctx)
	if last != nil {
		if _, err := u.receive(keep, last); err != nil {
			if kerr := u.keep(keep); kerr != nil {
				return info, kerr
			}
			return info, err
		}
	}
	if err := u.load(keep); err != nil {
		return info, err
	}
	info.Size = u.Size()
	got := digest.NewDigest(u.s.Algorithm, u.hash)
	if u.s.Algorithm != dgst.Algorithm() {
		var err error
		if got, err = u.rehash(keep, dgst.Algorithm()); err != nil {
			return info, err
		}
	}
	if got != dgst {
		if err := u.Cancel(keep); err != nil {
			return info, err
		}
		return info, &depot.Mismatch{Want: dgst, Got: got, WantSize: -1, GotSize: info.Size}
	}
	return u.adopt(keep, info)
}

// rehash reads an upload of several requests again, whose digest turned out to
// be of another algorithm. Parts can be read only when they are an object.
func (u *upload) rehash(ctx context.Context, algorithm digest.Algorithm) (digest.Digest, error) {
	h := algorithm.Hash()
	if u.s.Multipart != "" {
		if err := u.complete(ctx); err != nil {
			return "", err
		}
		body, _, _, err := u.b.core.GetObject(ctx, u.b.bucket, u.b.prefix+u.s.Key, minio.GetObjectOptions{})
		if err != nil {
			return "", explain(err)
		}
		defer body.Close()
		if _, err := io.Copy(h, body); err != nil {
			return "", explain(err)
		}
	} else {
		h.Write(*u.pending)
	}
	return digest.NewDigest(algorithm, h), nil
}

// complete makes the parts and what is pending one object.
func (u *upload) complete(ctx context.Context) error {
	if len(*u.pending) > 0 {
		if err := u.flush(ctx); err != nil {
			return err
		}
	}
	parts := make([]minio.CompletePart, len(u.s.Parts))
	for i, tag := range u.s.Parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: tag}
	}
	if _, err := u.b.core.CompleteMultipartUpload(ctx, u.b.bucket, u.b.prefix+u.s.Key, u.s.Multipart, parts, minio.PutObjectOptions{}); err != nil {
		return explain(err)
	}
	u.s.Multipart, u.s.Parts = "", nil
	return nil
}

// adopt makes the bytes, which are verified, a blob of the repository.
func (u *upload) adopt(ctx context.Context, info depot.Info) (depot.Info, error) {
	b := u.b
	// From here on it is not collected in this repository.
	if err := b.holds.Hold(ctx, u.s.Repository, info.Digest); err != nil {
		return info, err
	}
	lock := b.digestLock(info.Digest)
	lock.Lock()
	defer lock.Unlock()
	key := blobKey(info.Digest)
	_, there, err := b.stat(ctx, key)
	if err != nil {
		return info, err
	}
	if !there {
		if err := u.bring(ctx, key); err != nil {
			return info, err
		}
	}
	if err := b.link(ctx, u.s.Repository, info); err != nil {
		return info, err
	}
	info.Time = time.Now()
	return info, u.Cancel(ctx)
}

// bring puts the bytes to the key.
func (u *upload) bring(ctx context.Context, key string) error {
	if u.s.Multipart == "" && u.s.Key == "" {
		return u.b.put(ctx, key, *u.pending)
	}
	if u.s.Multipart != "" {
		if err := u.complete(ctx); err != nil {
			return err
		}
	}
	if u.s.Key == key {
		return nil
	}
	to := minio.CopyDestOptions{Bucket: u.b.bucket, Object: u.b.prefix + key}
	from := minio.CopySrcOptions{Bucket: u.b.bucket, Object: u.b.prefix + u.s.Key}
	var err error
	if u.s.InParts <= u.b.copyLimit {
		_, err = u.b.core.Client.CopyObject(ctx, to, from)
	} else {
		_, err = u.b.core.Client.ComposeObject(ctx, to, from)
	}
	return explain(err)
}

// ExpireUploads implements depot.Depot.
func (b *Bucket) ExpireUploads(ctx context.Context, since time.Time) (n int, err error) {
	err = b.each(ctx, "uploads/", "", 1000, func(rest string, o minio.ObjectInfo) error {
		id, isState := strings.CutSuffix(rest, ".json")
		if !isState || !o.LastModified.Before(since) {
			return nil
		}
		data, _, ok, err := b.get(ctx, stateKey(id))
		if err != nil || !ok {
			return err
		}
		var s state
		if err := json.Unmarshal(data, &s); err != nil {
			return errs.System("the state of upload %s is damaged: %v", id, err)
		}
		n++
		return b.discard(ctx, id, s)
	})
	return n, err
}

// Put implements depot.Depot.
func (b *Bucket) Put(ctx context.Context, repository string, dgst digest.Digest, size int64, r io.Reader) (depot.Info, error) {
	if err := depot.CheckBoth(repository, dgst); err != nil {
		return depot.Info{}, err
	}
	if size >= 0 {
		r = depot.Sized(r, dgst, size)
	}
	u := b.newUpload(ctx, repository, dgst.Algorithm())
	u.direct = blobKey(dgst)
	defer u.Close()
	info, err := u.Commit(ctx, dgst, r)
	if err != nil {
		_ = u.Cancel(context.WithoutCancel(ctx))
	}
	return info, err
}
