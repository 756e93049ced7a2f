package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// origin is a registry that is mirrored: ours, over HTTP, with a hand on what it
// answers.
type origin struct {
	*httptest.Server
	mu     sync.Mutex
	counts map[string]int
	// before is asked before each request; true has answered it.
	before atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	d, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	protocol := serve.New(serve.Options{Depot: d, Log: slog.New(slog.DiscardHandler)})
	o := &origin{counts: map[string]int{}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := "other"
		for _, k := range []string{"manifests", "blobs"} {
			if strings.Contains(r.URL.Path, "/"+k+"/") {
				kind = k
			}
		}
		o.mu.Lock()
		o.counts[r.Method+" "+kind]++
		o.mu.Unlock()
		if f := o.before.Load(); f != nil && (*f)(w, r) {
			return
		}
		protocol.ServeHTTP(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) host() string { return strings.TrimPrefix(o.URL, "http://") }

func (o *origin) count(key string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[key]
}

func (o *origin) meddle(f func(w http.ResponseWriter, r *http.Request) bool) { o.before.Store(&f) }

func request(t *testing.T, method, url string, body []byte, mediaType string) (int, http.Header, []byte, error) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, data, err
}

// push puts an image with one layer of so many bytes there.
func (o *origin) push(t *testing.T, name, tag string, size int) (manifest, layer digest.Digest) {
	t.Helper()
	put := func(data []byte) ocispec.Descriptor {
		dgst := digest.FromBytes(data)
		if status, _, body, err := request(t, "POST", o.URL+"/v2/"+name+"/blobs/uploads/?digest="+dgst.String(), data, "application/octet-stream"); err != nil || status != 201 {
			t.Fatalf("%d %s %v", status, body, err)
		}
		return ocispec.Descriptor{Digest: dgst, Size: int64(len(data))}
	}
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(len(tag)), byte(size)})
	_, _ = source.Read(data)
	l, c := put(data), put([]byte("{}"))
	l.MediaType, c.MediaType = ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageConfig
	body, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: c, Layers: []ocispec.Descriptor{l}, Annotations: map[string]string{"tag": tag}})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, answer, err := request(t, "PUT", o.URL+"/v2/"+name+"/manifests/"+tag, body, ocispec.MediaTypeImageManifest); err != nil || status != 201 {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	return digest.FromBytes(body), l.Digest
}

// front is a registry in front of the origin.
type front struct {
	*httptest.Server
	t      *testing.T
	mirror *Mirror
	depot  *directory.Directory
}

func newFront(t *testing.T, o *origin, ttl time.Duration) *front {
	t.Helper()
	d, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	m, err := New(Options{
		Remotes: []Remote{{Prefix: "hub", Registry: o.host(), TTL: ttl}}, Depot: d, Spool: t.TempDir(), Log: quiet,
		Client: registry.New(registry.Options{Attempts: 2, Backoff: time.Millisecond}),
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &front{t: t, mirror: m, depot: d}
	f.Server = httptest.NewServer(serve.New(serve.Options{Depot: d, Upstream: m, Log: quiet}))
	t.Cleanup(func() { f.Close(); d.Close() })
	return f
}

func (f *front) get(path string) (int, http.Header, []byte, error) {
	return request(f.t, "GET", f.URL+path, nil, "")
}

func (f *front) want(path string, dgst digest.Digest) http.Header {
	f.t.Helper()
	status, header, data, err := f.get(path)
	if err != nil || status != 200 || digest.FromBytes(data) != dgst {
		f.t.Fatalf("GET %s: %d %.200s %v", path, status, data, err)
	}
	return header
}

// awake has registries that were down be asked at once.
func (f *front) awake() {
	for _, r := range f.mirror.remotes {
		r.note(nil)
	}
}

func TestAnImageIsFetchedOnce(t *testing.T) {
	o := newOrigin(t)
	manifest, layer := o.push(t, "team/app", "v1", 100_000)
	f := newFront(t, o, time.Hour)
	for range 3 {
		f.want("/v2/hub/team/app/manifests/v1", manifest)
		f.want("/v2/hub/team/app/blobs/"+layer.String(), layer)
	}
	if n := o.count("GET blobs"); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
	if n := o.count("GET manifests"); n != 1 {
		t.Errorf("the manifest was fetched %d times", n)
	}
	if n := o.count("HEAD manifests"); n != 1 {
		t.Errorf("the tag was asked for %d times within its time", n)
	}
	// A part is served too, and what is not there is not there.
	if status, _, _, _ := f.get("/v2/hub/team/app/manifests/none"); status != 404 {
		t.Errorf("a tag that is nowhere: %d", status)
	}
	if status, _, _, _ := f.get("/v2/other/app/manifests/v1"); status != 404 {
		t.Errorf("a repository that is not mirrored: %d", status)
	}
}

// What a person would lose: bandwidth, when a hundred machines start at once.
func TestManyAskAtOnce(t *testing.T) {
	o := newOrigin(t)
	_, layer := o.push(t, "app", "v1", 3<<20)
	f := newFront(t, o, time.Hour)
	release := make(chan struct{})
	o.meddle(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") {
			<-release
		}
		return false
	})
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() { f.want("/v2/hub/app/blobs/"+layer.String(), layer) })
	}
	close(release)
	clients.Wait()
	if n := o.count("GET blobs"); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}

// The bytes reach the client while they arrive, not when all are there.
func TestABlobIsHandedOnWhileItArrives(t *testing.T) {
	o := newOrigin(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	dgst := digest.FromBytes(data)
	rest := make(chan struct{})
	o.meddle(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if r.Method == "GET" {
			_, _ = w.Write(data[:len(data)/2])
			_ = http.NewResponseController(w).Flush()
			<-rest
			_, _ = w.Write(data[len(data)/2:])
		}
		return true
	})
	f := newFront(t, o, time.Hour)
	resp, err := http.Get(f.URL + "/v2/hub/app/blobs/" + dgst.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	half := make([]byte, len(data)/2)
	if _, err := io.ReadFull(resp.Body, half); err != nil {
		t.Fatal(err)
	}
	close(rest)
	tail, err := io.ReadAll(resp.Body)
	if err != nil || digest.FromBytes(append(half, tail...)) != dgst {
		t.Errorf("%d bytes, %v", len(half)+len(tail), err)
	}
}

// What a person would lose: the trust in a digest. A registry that sends other
// bytes is found out before the client takes them for whole, and they are not
// kept.
func TestABlobThatLies(t *testing.T) {
	o := newOrigin(t)
	data := []byte("what was asked for, and more than a little of it")
	dgst := digest.FromBytes(data)
	for name, sent := range map[string][]byte{"other bytes": bytes.ToUpper(data), "cut": data[:20]} {
		o.meddle(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			if r.Method == "GET" {
				_, _ = w.Write(sent)
			}
			return true
		})
		f := newFront(t, o, time.Hour)
		status, _, got, err := f.get("/v2/hub/app/blobs/" + dgst.String())
		if err == nil && status == 200 {
			t.Errorf("%s: the client got %q as a whole blob", name, got)
		}
		if _, err := f.depot.Stat(context.Background(), "hub/app", dgst); err == nil {
			t.Errorf("%s: it is kept", name)
		}
	}
}

// What a person would lose: what is private here, to whoever may read a mirror of
// a registry that says it has the same.
func TestAClaimOpensNothingElse(t *testing.T) {
	o := newOrigin(t)
	f := newFront(t, o, time.Hour)
	secret := []byte("pushed here, and nobody's else")
	dgst := digest.FromBytes(secret)
	if _, err := f.depot.Put(t.Context(), "private/app", dgst, int64(len(secret)), bytes.NewReader(secret)); err != nil {
		t.Fatal(err)
	}
	o.meddle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "HEAD" || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(secret)))
		return true
	})
	if status, _, got, err := f.get("/v2/hub/app/blobs/" + dgst.String()); err == nil && bytes.Contains(got, secret) {
		t.Errorf("%d: the mirror hands out what was pushed to another repository", status)
	}
	o.meddle(func(http.ResponseWriter, *http.Request) bool { return false })
	// What the same registry sent for another repository is not fetched twice.
	_, layer := o.push(t, "app", "v1", 100)
	f.want("/v2/hub/app/blobs/"+layer.String(), layer)
	if status, _, body, err := request(t, "POST", o.URL+"/v2/copy/blobs/uploads/?from=app&mount="+layer.String(), nil, ""); err != nil || status != 201 {
		t.Fatalf("%d %s %v", status, body, err)
	}
	fetched := o.count("GET blobs")
	f.want("/v2/hub/copy/blobs/"+layer.String(), layer)
	if n := o.count("GET blobs"); n != fetched {
		t.Errorf("a blob that is here was fetched again")
	}
}

func TestTagsAreRevalidated(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.push(t, "app", "v1", 10)
	f := newFront(t, o, time.Nanosecond)
	f.want("/v2/hub/app/manifests/v1", first)
	f.want("/v2/hub/app/manifests/v1", first)
	if n := o.count("GET manifests"); n != 1 {
		t.Errorf("a tag that did not move was fetched %d times", n)
	}
	second, _ := o.push(t, "app", "v1", 11)
	f.want("/v2/hub/app/manifests/v1", second)
	if status, _, _, err := request(t, "DELETE", o.URL+"/v2/app/manifests/v1", nil, ""); err != nil || status != 202 {
		t.Fatalf("%d %v", status, err)
	}
	if status, _, _, _ := f.get("/v2/hub/app/manifests/v1"); status != 404 {
		t.Errorf("a tag that is gone there: %d", status)
	}
}

// What a person would lose: a deployment, because the other registry is down.
func TestWhatIsHereIsServedWhileTheOtherIsDown(t *testing.T) {
	o := newOrigin(t)
	manifest, layer := o.push(t, "app", "v1", 1000)
	f := newFront(t, o, time.Nanosecond)
	f.want("/v2/hub/app/manifests/v1", manifest)
	f.want("/v2/hub/app/blobs/"+layer.String(), layer)
	o.meddle(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	header := f.want("/v2/hub/app/manifests/v1", manifest)
	if warning := header.Get("Warning"); !strings.Contains(warning, "may be out of date") {
		t.Errorf("the client is not told: %q", warning)
	}
	f.want("/v2/hub/app/blobs/"+layer.String(), layer)
	if status, _, _, _ := f.get("/v2/hub/app/manifests/v2"); status != 503 {
		t.Errorf("what is not here: %d", status)
	}
	o.meddle(func(http.ResponseWriter, *http.Request) bool { return false })
	f.awake()
	if header := f.want("/v2/hub/app/manifests/v1", manifest); header.Get("Warning") != "" {
		t.Error("it is still said to be out of date")
	}
}

// A client that leaves does not take the blob from others, nor from the depot.
func TestAClientLeaves(t *testing.T) {
	o := newOrigin(t)
	_, layer := o.push(t, "app", "v1", 3<<20)
	reached, release := make(chan struct{}, 1), make(chan struct{})
	o.meddle(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") {
			reached <- struct{}{}
			<-release
		}
		return false
	})
	f := newFront(t, o, time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", f.URL+"/v2/hub/app/blobs/"+layer.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	<-reached
	cancel()
	<-gone
	close(release)
	f.want("/v2/hub/app/blobs/"+layer.String(), layer)
	if n := o.count("GET blobs"); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}

func TestRemotesThatAreRefused(t *testing.T) {
	for _, bad := range [][]Remote{
		{{Registry: "nohost"}}, {{Registry: "https://x.example"}}, {{Registry: "x.example", Prefix: "UPPER"}},
		{{Registry: "x.example"}, {Registry: "y.example"}},
	} {
		if _, err := New(Options{Remotes: bad}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
