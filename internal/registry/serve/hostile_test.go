package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
)

// What a person would lose: connections, to clients who need no right to hold
// one: net/http reads to the end of a body before it answers.
func TestABodyNobodyReadsHasAnEnd(t *testing.T) {
	s := registry(t, func(o *Options) { o.Limits.Body = 50 * time.Millisecond })
	c, err := net.Dial("tcp", host(s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /v2/ HTTP/1.1\r\nHost: registry.test\r\nContent-Length: 100\r\n\r\n{")
	if _, err := io.ReadAll(c); err != nil { // ends when the registry gives up
		t.Error(err)
	}
}

// What a person would lose: a push, to somebody with a repository of his own who
// has seen its ID.
func TestAnUploadIsNotStoppedFromElsewhere(t *testing.T) {
	p := &peer{base: registry(t, nil).URL}
	location, err := p.start("mine")
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789"), 1000)
	c := half(t, p, location, data[:5000], len(data))
	id := location[len(location)-36:]
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		a, err := p.want(404, method, "/v2/other/blobs/uploads/"+id, []byte{})
		if err := first(err, a.code(codeBlobUploadUnknown)); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Write(data[5000:]); err != nil {
		t.Fatal(err)
	}
	status := make([]byte, 12)
	if _, err := io.ReadFull(c, status); err != nil || string(status) != "HTTP/1.1 202" {
		t.Fatalf("the upload was ended: %q, %v", status, err)
	}
	if a, err := p.finish(location, digest.FromBytes(data), nil); err != nil || a.status != 201 {
		t.Errorf("%v, %v", a, err)
	}
}

// What a person would lose: the page's rule that only its own scripts run, as a
// blob comes from the same origin.
func TestABlobIsNoScript(t *testing.T) {
	p := &peer{base: registry(t, nil).URL}
	dgst, err := p.push("r", []byte("alert(1)"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.want(200, "GET", blobPath("r", dgst), nil)
	if err := first(err, a.has("X-Content-Type-Options", "nosniff")); err != nil {
		t.Error(err)
	}
}

// bounded notes how many referrers are asked of a depot at once.
type bounded struct {
	depot.Depot
	most int
}

func (b *bounded) Referrers(ctx context.Context, repository string, subject digest.Digest, after string, n int) ([]depot.Manifest, error) {
	if n < 0 || n > b.most {
		b.most = n
	}
	return b.Depot.Referrers(ctx, repository, subject, after, n)
}

// What a person would lose: the memory of the machine, to who attaches a thousand
// artifacts with annotations of megabytes to one image.
func TestReferrersAreNotAllInMemory(t *testing.T) {
	b := &bounded{}
	p := &peer{base: registry(t, func(o *Options) {
		b.Depot = o.Depot.(depot.Depot)
		o.Depot = b
	}).URL}
	subject := digest.FromString("subject")
	want, err := p.refer("r", subject, 70)
	if err != nil {
		t.Fatal(err)
	}
	var all []ocispec.Descriptor
	var a *answer
	for path := referrersPath("r", subject) + "?n=50"; path != ""; {
		var got []ocispec.Descriptor
		if got, a, err = p.referrers(path); err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
		if path, err = a.next(); err != nil {
			t.Fatal(err)
		}
	}
	if err := sameReferrers(a, all, want); err != nil {
		t.Error(err)
	}
	if b.most > 32 {
		t.Errorf("%d referrers are held in memory at once", b.most)
	}
}

// What a person would lose: a thousand requests to the bucket for one that asks
// for a thousand ranges of a blob.
func TestManyRanges(t *testing.T) {
	p := &peer{base: registry(t, nil).URL}
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	dgst := digest.FromBytes(data)
	if _, err := p.want(201, "POST", "/v2/r/blobs/uploads/?digest="+dgst.String(), data, "Content-Type", "application/octet-stream"); err != nil {
		t.Fatal(err)
	}
	for n, status := range map[int]int{1: 206, 16: 206, 17: 200, 5000: 200} {
		ranges := "bytes=0-0"
		for i := 1; i < n; i++ {
			ranges += fmt.Sprintf(",%d-%d", 10*i, 10*i)
		}
		if _, err := p.want(status, "GET", blobPath("r", dgst), nil, "Range", ranges); err != nil {
			t.Errorf("%d ranges: %v", n, err)
		}
	}
}

// failing is a depot whose disk is not as it should be.
type failing struct{ depot.Depot }

func (failing) StatManifest(context.Context, string, string) (depot.Manifest, error) {
	return depot.Manifest{}, errors.New("open /srv/secret/depot.db: permission denied")
}

// What a person would lose: what the inside of his machine looks like.
func TestFailuresKeepTheirReasons(t *testing.T) {
	var log bytes.Buffer
	p := &peer{base: registry(t, func(o *Options) {
		o.Depot = failing{o.Depot.(depot.Depot)}
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	}).URL}
	a, err := p.want(500, "DELETE", manifestPath("r", "v1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(a.body, []byte("secret")) || !bytes.Contains(a.body, []byte("its log says why")) {
		t.Errorf("the client is told %s", a.body)
	}
	if !strings.Contains(log.String(), "/srv/secret/depot.db") {
		t.Errorf("the log says %s", log.String())
	}
}

// What a person would lose: memory and files, to a client that holds a hundred
// streams of one connection open and reads none of them.
func TestAStreamNobodyReads(t *testing.T) {
	d, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	ended := make(chan struct{}, 10)
	o := Options{Depot: d, Notify: func(e Event) {
		if e.Action == EventPull {
			ended <- struct{}{}
		}
	}}
	o.Limits.Unread = 200 * time.Millisecond
	h := httptest.NewUnstartedServer(New(o))
	h.EnableHTTP2 = true
	h.StartTLS()
	t.Cleanup(h.Close)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	dgst := digest.FromBytes(data)
	if _, err := d.Put(t.Context(), "r", dgst, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	get := func() *http.Response {
		resp, err := h.Client().Get(h.URL + blobPath("r", dgst))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
			t.Fatalf("%s %s", resp.Proto, resp.Status)
		}
		return resp
	}
	get() // and nothing is read of it
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the stream is held")
	}
	// Others on the same connection are not touched.
	if got, err := io.ReadAll(get().Body); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
