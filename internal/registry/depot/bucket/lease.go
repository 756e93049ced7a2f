package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	minio "github.com/minio/minio-go/v7"

	"github.com/gantry-containers/gantry/internal/errs"
)

// A bucket is written to by one process (see the package comment), and the object
// "owner" says by which. Its owner writes it anew every third of the lease; who
// finds it older than the lease takes it over, and who has not been able to write
// it for that long writes nothing else either. Writes are conditional
// (If-None-Match, If-Match), so that of two who take it one gets it. Servers that
// do not know conditions are found out by reading it again; there a moment is
// left in which two processes both believe to be the one, until the next time.
//
// An owner that died comes back at once when it has the name it had, and after
// the lease when not: Options.Owner is for who can keep a name to himself.
const (
	ownerKey     = "owner"
	defaultLease = 30 * time.Second
)

// owner is what the object holds.
type owner struct {
	ID    string `json:"id"`
	Host  string `json:"host"`
	Count int64  `json:"count"` // of renewals: no two of its contents are the same
}

// lease is the claim of a Bucket to its bucket.
type lease struct {
	length time.Duration
	lost   chan struct{} // closed when another process has taken the bucket
	stop   context.CancelFunc
	done   chan struct{}

	mu            sync.Mutex // guards what follows, and is held for a renewal
	me            owner
	etag          string
	renewed       time.Time
	err           error // why nothing may be written any more
	unconditional bool  // the server refuses conditions
}

// Lost is closed when another process has taken the bucket over. Nothing is
// written from then on.
func (b *Bucket) Lost() <-chan struct{} { return b.lease.lost }

// claim takes the bucket, or fails with ErrConflict when another process has it.
func (b *Bucket) claim(ctx context.Context, o Options) error {
	id, length := o.Owner, o.Lease
	host, _ := os.Hostname() // "" says as little as some names do
	b.lease = &lease{length: length, lost: make(chan struct{}), done: make(chan struct{}), me: owner{ID: id, Host: host}}
	l := b.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	there, etag, age, err := b.owner(ctx)
	if err != nil {
		return err
	}
	if there != nil && there.ID != id && age < length {
		return errs.Conflict("the bucket %s is in use by a registry on %s, which was heard of %s ago; if that one is gone, it can be opened in %s",
			b.bucket, there.Host, age.Round(time.Second), (length-age).Round(time.Second)+time.Second)
	}
	if there != nil {
		l.me.Count = there.Count
	}
	err = b.write(ctx, etag)
	if err == nil {
		// A server that ignores conditions may have let two of us write.
		there, _, _, err = b.owner(ctx)
		if err == nil && (there == nil || there.ID != id) {
			err = errTaken
		}
	}
	var refused minio.ErrorResponse
	switch {
	case errors.Is(err, errTaken):
		return errs.Conflict("the bucket %s is being opened by another registry", b.bucket)
	case o.ReadOnly && errors.As(err, &refused) && refused.Code == minio.AccessDenied:
		l.err = errs.Forbidden("nothing is written to bucket %s: its key may only read", b.bucket)
		l.stop = func() {}
		close(l.done)
		return nil
	case err != nil:
		return fmt.Errorf("cannot claim bucket %s: %w", b.bucket, err)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go b.renews(work)
	return nil
}

// errTaken says that the object is not as it was left.
var errTaken = errors.New("another process has it")

// owner reads the object; nil when there is none. Its age is by the server's
// clock where the server tells it.
func (b *Bucket) owner(ctx context.Context) (there *owner, etag string, age time.Duration, err error) {
	body, info, header, err := b.core.GetObject(ctx, b.bucket, b.prefix+ownerKey, minio.GetObjectOptions{})
	if absent(err) {
		return nil, "", 0, nil
	}
	if err != nil {
		return nil, "", 0, explain(err)
	}
	defer body.Close()
	there = &owner{}
	if json.NewDecoder(body).Decode(there) != nil {
		there = &owner{} // nobody's
	}
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return there, info.ETag, max(0, now.Sub(info.LastModified)), nil
}

// write writes the object if it still is the one with the entity tag, or, for
// none, if there is none. It fails with errTaken otherwise. The caller holds mu.
func (b *Bucket) write(ctx context.Context, etag string) error {
	l := b.lease
	begun := time.Now()
	l.me.Count++
	data, err := json.Marshal(l.me)
	if err != nil {
		return err
	}
	opts := minio.PutObjectOptions{DisableMultipart: true}
	if !l.unconditional {
		if etag == "" {
			opts.SetMatchETagExcept("*")
		} else {
			opts.SetMatchETag(etag)
		}
	}
	info, err := b.core.Client.PutObject(ctx, b.bucket, b.prefix+ownerKey, bytes.NewReader(data), int64(len(data)), opts)
	switch status := minio.ToErrorResponse(err).StatusCode; {
	case err == nil:
		l.etag, l.renewed = info.ETag, begun
		return nil
	case status == http.StatusPreconditionFailed, status == http.StatusConflict, etag != "" && status == http.StatusNotFound:
		return errTaken
	case status == http.StatusNotImplemented && !l.unconditional:
		l.unconditional = true
		return b.write(ctx, etag)
	}
	return explain(err)
}

// renews writes the object again and again.
func (b *Bucket) renews(ctx context.Context) {
	defer close(b.lease.done)
	tick := time.NewTicker(b.lease.length / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.lease.mu.Lock()
			_ = b.renew(ctx) // tried again; writes say what is wrong
			b.lease.mu.Unlock()
		case <-b.lease.lost:
			return
		case <-ctx.Done():
			return
		}
	}
}

// renew writes the object, unless another process has. The caller holds mu.
func (b *Bucket) renew(ctx context.Context) error {
	l := b.lease
	if l.err != nil {
		return l.err
	}
	ctx, cancel := context.WithTimeout(ctx, l.length)
	defer cancel()
	there, etag, _, err := b.owner(ctx)
	if err != nil {
		return err
	}
	if there != nil && there.ID == l.me.ID {
		// Also when an answer to the last renewal did not arrive.
		err = b.write(ctx, etag)
	} else {
		err = errTaken
	}
	if errors.Is(err, errTaken) {
		l.err = errs.Conflict("another registry has taken over the bucket %s: this one writes nothing to it any more", b.bucket)
		close(l.lost)
		return l.err
	}
	return err
}

// mine fails unless this process may write: also when it was stopped, or cut off
// from the server, for so long that another may have taken over.
func (b *Bucket) mine(ctx context.Context) error {
	l := b.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if time.Since(l.renewed) < l.length-l.length/10 { // others' clocks have whole seconds
		return nil
	}
	if err := b.renew(ctx); err != nil {
		return fmt.Errorf("nothing is written to bucket %s until it is known that no other registry has taken it over: %w", b.bucket, err)
	}
	return nil
}

// release lets another process have the bucket at once.
func (b *Bucket) release() {
	l := b.lease
	l.stop()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = errs.Unavailable("the registry is being stopped")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if there, _, _, err := b.owner(ctx); err == nil && there != nil && there.ID == l.me.ID {
		_ = b.core.Client.RemoveObject(ctx, b.bucket, b.prefix+ownerKey, minio.RemoveObjectOptions{}) // else it is waited for
	}
}
