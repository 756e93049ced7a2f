package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/depot/bucket/s3test"
	"github.com/gantry-containers/gantry/internal/registry/depot/depottest"
)

var ctx = context.Background()

// partSize is small, so that uploads have many parts.
const partSize = 64 << 10

func server(t *testing.T) (*s3test.Server, Options) {
	s := s3test.New(partSize)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, Options{
		Endpoint: strings.TrimPrefix(h.URL, "http://"), Insecure: true, Bucket: "depot", Prefix: "registry/",
		Region: "us-east-1", AccessKey: "key", SecretKey: "secret", PartSize: partSize,
		Owner: "test",
	}
}

func open(t *testing.T, o Options) *Bucket {
	t.Helper()
	b, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestContract(t *testing.T) {
	depottest.Run(t, func(t *testing.T) depottest.Opener {
		_, o := server(t)
		return func(t *testing.T) depot.Depot { return open(t, o) }
	})
}

func TestOpen(t *testing.T) {
	_, o := server(t)
	for _, c := range []struct {
		change func(*Options)
		class  error
		want   string
	}{
		{func(o *Options) { o.Bucket = "another" }, errdefs.ErrNotFound, "has no bucket another"},
		{func(o *Options) { o.AccessKey = "wrong" }, errdefs.ErrInternal, "refuses the registry's key"},
		{func(o *Options) { o.Endpoint = "not an endpoint" }, errdefs.ErrInvalidArgument, "not an endpoint"},
	} {
		bad := o
		c.change(&bad)
		if _, err := Open(ctx, bad); !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, not %q", err, c.want)
		}
	}
}

// What a person would lose: money, for what stays in a bucket unseen.
func TestNothingStays(t *testing.T) {
	s, o := server(t)
	b := open(t, o)
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	dgst := digest.FromBytes(data)
	for _, commit := range []bool{true, false} {
		u, err := b.StartUpload(ctx, "r", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.ReadFrom(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if commit {
			_, err = u.Commit(ctx, dgst, nil)
		} else {
			err = u.Cancel(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Put(ctx, "r", digest.FromString("lie"), -1, bytes.NewReader(data)); err == nil {
		t.Error("a lie was believed")
	}
	abandoned, err := b.StartUpload(ctx, "r", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := abandoned.ReadFrom(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	m := depot.Manifest{Digest: digest.FromString("m"), Size: 1, MediaType: "x/y", Blobs: []digest.Digest{dgst}, Subject: dgst}
	if err := b.PutManifest(ctx, "r", m, []byte("m"), depot.PutOptions{Tags: []string{"t"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteTag(ctx, "r", "t"); err != nil {
		t.Fatal(err)
	}
	report, err := depot.Collect(ctx, b, depot.Collection{Grace: -time.Hour, Untagged: true, Uploads: time.Nanosecond})
	if err != nil || report.Blobs != 1 || report.Manifests != 1 || report.Repositories != 1 || report.Bytes != int64(len(data)) {
		t.Errorf("%+v, %v", report, err)
	}
	// The listing has whole seconds: the abandoned upload may look young.
	if _, err := b.ExpireUploads(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	for key := range s.Objects {
		t.Errorf("%s stays", key)
	}
	for id := range s.Uploads {
		t.Errorf("multipart upload %s stays", id)
	}
}

// What a person would lose: another blob's bytes under a digest, by an upload
// that was cut off and resumed with another digest.
func TestResumedWithAnotherDigest(t *testing.T) {
	_, o := server(t)
	b := open(t, o)
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	claimed := digest.FromString("what somebody else needs")
	u, err := b.StartUpload(ctx, "r", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(ctx, claimed, io.MultiReader(bytes.NewReader(data[:300_000]), cutReader{})); err == nil {
		t.Fatal("a cut body was taken for whole")
	}
	if u, err = b.Upload(ctx, "r", u.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(ctx, digest.FromBytes(data), bytes.NewReader(data[300_000:])); err != nil {
		t.Fatal(err)
	}
	if _, there, err := b.stat(ctx, blobKey(claimed)); err != nil || there {
		t.Errorf("there are bytes under %s: %v", claimed, err)
	}
}

type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, errors.New("cut") }

// What a person would lose: a message that says what is wrong, and the upload.
func TestServerFails(t *testing.T) {
	s, o := server(t)
	b := open(t, o)
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	u, err := b.StartUpload(ctx, "r", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.ReadFrom(bytes.NewReader(data[:100_000])); err != nil {
		t.Fatal(err)
	}
	set := func(broken, full bool) {
		s.Mu.Lock()
		defer s.Mu.Unlock()
		s.Broken, s.Full = broken, full
	}
	set(false, true)
	if _, err := u.ReadFrom(bytes.NewReader(data[100_000:])); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full server: %v", err)
	}
	set(false, false)
	again, err := b.Upload(ctx, "r", u.ID())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Commit(ctx, digest.FromBytes(data), bytes.NewReader(data[again.Size():])); err != nil {
		t.Errorf("after room was made, with %d bytes kept: %v", again.Size(), err)
	}
	set(true, false)
	short, cancel := context.WithTimeout(ctx, 2*time.Second) // the client tries again and again
	defer cancel()
	if _, err := b.Stat(short, "r", digest.FromBytes(data)); err == nil || errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a broken server: %v", err)
	}
	set(false, false) // so that closing does not wait for it
}

// What a person would lose: layers of more than 5 GiB, which no S3 server copies
// with one request.
func TestCopyInParts(t *testing.T) {
	s, o := server(t)
	b := open(t, o)
	b.copyLimit = 100_000
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	u, err := b.StartUpload(ctx, "r", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(ctx, digest.FromBytes(data), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	r, _, err := b.Open(ctx, "r", digest.FromBytes(data))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) || s.Copied == 0 {
		t.Errorf("%d bytes, %v, %d parts were copied", len(got), err, s.Copied)
	}
}
