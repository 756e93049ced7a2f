package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobOf makes a blob and what opens it.
func blobOf(size int, seed byte) ([]byte, ocispec.Descriptor, func(context.Context, int64) (io.ReadCloser, error)) {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{seed})
	source.Read(data)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(size)}
	return data, desc, func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data[offset:])), nil
	}
}

func repository(t testing.TB, c *Client, name string, cred *AuthConfig) *Repository {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := c.Repository(t.Context(), named, cred)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// fetched reads a blob back.
func fetched(t testing.TB, repo *Repository, desc ocispec.Descriptor) []byte {
	t.Helper()
	rc, err := repo.Blob(t.Context(), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func push(t testing.TB, repo *Repository, desc ocispec.Descriptor, open func(context.Context, int64) (io.ReadCloser, error), o PushOptions, want PushResult) {
	t.Helper()
	got, err := repo.PushBlob(t.Context(), desc, open, o)
	if err != nil || got != want {
		t.Errorf("pushed as %+v, %v; want %+v", got, err, want)
	}
}

// Debian's docker-registry takes, mounts and gives back what is pushed.
func TestPushToDockerRegistry(t *testing.T) {
	p := startPeer(t, "")
	c := New(Options{Backoff: time.Millisecond})
	web, other := repository(t, c, p.addr+"/team/web", nil), repository(t, c, p.addr+"/team/other", nil)
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	for name, o := range map[string]PushOptions{"one request": {}, "chunks": {ChunkSize: 100_000}, "one chunk": {ChunkSize: 10 << 20}} {
		data, desc, open := blobOf(1_234_567, name[len(name)-1])
		last := int64(0)
		o.Progress = func(written int64) { last = written }
		push(t, web, desc, open, o, PushResult{Outcome: Uploaded})
		if last != desc.Size {
			t.Errorf("%s: told of %d bytes of %d", name, last, desc.Size)
		}
		if got := fetched(t, web, desc); !bytes.Equal(got, data) {
			t.Errorf("%s: got %d other bytes back", name, len(got))
		}
		push(t, web, desc, open, o, PushResult{Outcome: Existed})
		mount := PushOptions{MountFrom: []string{"no/such", "team/other", "team/web"}}
		push(t, other, desc, open, mount, PushResult{Outcome: Mounted, From: "team/web"})
	}
	_, empty, open := blobOf(0, 0)
	push(t, web, empty, open, PushOptions{}, PushResult{Outcome: Uploaded})

	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	push(t, web, desc, func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(config)), nil }, PushOptions{MountFrom: []string{"no/such"}}, PushResult{Outcome: Uploaded})
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		ocispec.MediaTypeImageManifest, desc.MediaType, desc.Digest, desc.Size)
	dgst, err := web.PushManifest(t.Context(), "1.0", ocispec.MediaTypeImageManifest, body)
	if err != nil || dgst != digest.FromBytes(body) {
		t.Fatalf("pushed %s, %v", dgst, err)
	}
	if _, got, err := web.Manifest(t.Context(), "1.0"); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %s back, %v", got, err)
	}
	if err := web.Delete(t.Context(), dgst.String()); err != nil {
		t.Error(err)
	}
	if _, err := web.Resolve(t.Context(), "1.0"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("after it was deleted: %v", err)
	}
	if err := web.Delete(t.Context(), "1.0"); !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("a tag that is not there: %v", err)
	}
}

// A registry without the referrers call keeps their list under a tag.
func TestReferrersByTag(t *testing.T) {
	p := startPeer(t, "")
	repo := repository(t, New(Options{}), p.addr+"/web", nil)
	config, desc, open := blobOf(2, 1)
	_ = config
	push(t, repo, desc, open, PushOptions{}, PushResult{Outcome: Uploaded})
	of := digest.FromString("an image")
	var pushed []digest.Digest
	for _, kind := range []string{"a/sbom", "a/signature"} {
		body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":{"mediaType":%[1]q,"digest":%[4]q,"size":8},"annotations":{"k":"v"}}`,
			ocispec.MediaTypeImageManifest, kind, desc.Digest, of)
		for range 2 { // the second time it is listed already
			dgst, err := repo.PushManifest(t.Context(), digest.FromBytes(body).String(), ocispec.MediaTypeImageManifest, body)
			if err != nil {
				t.Fatal(err)
			}
			pushed = append(pushed[:len(pushed):len(pushed)], dgst)
		}
	}
	all, err := repo.Referrers(t.Context(), of, "")
	if err != nil || len(all) != 2 || all[0].Digest != pushed[0] || all[1].Digest != pushed[2] || all[0].Annotations["k"] != "v" {
		t.Errorf("got %+v, %v", all, err)
	}
	some, err := repo.Referrers(t.Context(), of, "a/signature")
	if err != nil || len(some) != 1 || some[0].Digest != pushed[2] {
		t.Errorf("got %+v, %v", some, err)
	}
	if none, err := repo.Referrers(t.Context(), digest.FromString("another"), ""); err != nil || len(none) != 0 {
		t.Errorf("got %+v, %v", none, err)
	}
}

// uploads is the upload protocol of a registry, with accidents.
type uploads struct {
	*httptest.Server
	accident func(w http.ResponseWriter, r *http.Request) bool // true when it has answered
	relative bool
	least    int64

	mu       sync.Mutex
	sessions map[string]*bytes.Buffer
	blobs    map[string][]byte
	received int64
	next     int
}

func newUploads(t testing.TB) *uploads {
	u := &uploads{sessions: map[string]*bytes.Buffer{}, blobs: map[string][]byte{}}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *uploads) host() string { return u.Listener.Addr().String() }

// hurt breaks the connection.
func hurt() { panic(http.ErrAbortHandler) }

func (u *uploads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" || u.accident != nil && u.accident(w, r) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	_, id, ok := strings.Cut(r.URL.Path, "/blobs/uploads/")
	switch {
	case !ok && r.Method == http.MethodHead:
		if _, have := u.blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]; !have {
			w.WriteHeader(404)
		}
	case id == "" && r.Method == http.MethodPost:
		u.next++
		id = strconv.Itoa(u.next)
		u.sessions[id] = &bytes.Buffer{}
		u.answer(w, r, id, 202)
	case u.sessions[id] == nil:
		w.WriteHeader(404)
		io.WriteString(w, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"no such upload"}]}`)
	case r.Method == http.MethodGet:
		u.answer(w, r, id, 204)
	case r.Method == http.MethodDelete:
		delete(u.sessions, id)
		w.WriteHeader(204)
	default:
		u.take(w, r, id)
	}
}

func (u *uploads) answer(w http.ResponseWriter, r *http.Request, id string, status int) {
	location := "/v2/team/web/blobs/uploads/" + id + "?state=" + strconv.Itoa(u.sessions[id].Len())
	if !u.relative {
		location = "http://" + r.Host + location
	}
	w.Header().Set("Location", location)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, u.sessions[id].Len()-1)))
	if u.least > 0 {
		w.Header().Set("OCI-Chunk-Min-Length", strconv.FormatInt(u.least, 10))
	}
	w.WriteHeader(status)
}

func (u *uploads) take(w http.ResponseWriter, r *http.Request, id string) {
	session := u.sessions[id]
	if at := r.Header.Get("Content-Range"); at != "" && !strings.HasPrefix(at, strconv.Itoa(session.Len())+"-") {
		u.answer(w, r, id, 416)
		return
	}
	n, err := io.Copy(session, r.Body)
	u.received += n
	if err != nil {
		hurt()
	}
	if r.Method == http.MethodPatch {
		u.answer(w, r, id, 202)
		return
	}
	data := session.Bytes()
	delete(u.sessions, id)
	dgst := r.URL.Query().Get("digest")
	if digest.FromBytes(data).String() != dgst {
		w.WriteHeader(400)
		io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}`)
		return
	}
	u.blobs[dgst] = data
	w.Header().Set("Docker-Content-Digest", dgst)
	w.WriteHeader(201)
}

// cutBody takes part of a request's body and breaks the connection.
func (u *uploads) cut(r *http.Request, after int64) {
	u.mu.Lock()
	_, id, _ := strings.Cut(r.URL.Path, "/blobs/uploads/")
	n, _ := io.CopyN(u.sessions[id], r.Body, after)
	u.received += n
	u.mu.Unlock()
	hurt()
}

// Whatever happens on the way, the blob arrives whole, and no more of it is
// sent again than was lost.
func TestUploadAccidents(t *testing.T) {
	const size = 1 << 20
	once := func(method string, f func(u *uploads, w http.ResponseWriter, r *http.Request)) func(u *uploads) func(w http.ResponseWriter, r *http.Request) bool {
		return func(u *uploads) func(w http.ResponseWriter, r *http.Request) bool {
			var did sync.Once
			return func(w http.ResponseWriter, r *http.Request) (mine bool) {
				if r.Method == method {
					did.Do(func() { mine = true })
				}
				if mine {
					f(u, w, r)
				}
				return mine
			}
		}
	}
	status := func(code int) func(u *uploads, w http.ResponseWriter, r *http.Request) {
		return func(_ *uploads, w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(code)
		}
	}
	for name, tt := range map[string]struct {
		accident func(*uploads) func(http.ResponseWriter, *http.Request) bool
		chunk    int64
		resumed  int64
		received int64 // by the registry in all
	}{
		"nothing":           {once("", nil), 0, 0, size},
		"cut in the PUT":    {once("PUT", func(u *uploads, _ http.ResponseWriter, r *http.Request) { u.cut(r, 700_000) }), 0, 700_000, size},
		"cut in a chunk":    {once("PATCH", func(u *uploads, _ http.ResponseWriter, r *http.Request) { u.cut(r, 100_000) }), 300_000, 100_000, size},
		"cut before a byte": {once("PUT", func(*uploads, http.ResponseWriter, *http.Request) { hurt() }), 0, 0, size},
		"cut at the POST":   {once("POST", func(*uploads, http.ResponseWriter, *http.Request) { hurt() }), 0, 0, size},
		"503":               {once("PUT", status(503)), 0, 0, size},
		"429 of a chunk":    {once("PATCH", status(429)), 400_000, 0, size},
		"416":               {once("PATCH", status(416)), 400_000, 0, size},
		"session lost":      {once("PATCH", func(u *uploads, w http.ResponseWriter, r *http.Request) { clear(u.sessions); status(404)(u, w, r) }), 400_000, 0, size},
		"too much at once":  {once("PUT", status(413)), 0, 0, size},
		"the answer is lost": {once("PUT", func(u *uploads, w http.ResponseWriter, r *http.Request) {
			u.mu.Lock()
			u.take(httptest.NewRecorder(), r, "1")
			u.mu.Unlock()
			hurt()
		}), 0, 0, size},
		"chunks of the wish":   {once("", nil), 1000, 0, size},
		"no status afterwards": {once("PUT", func(u *uploads, w http.ResponseWriter, r *http.Request) { u.cut2(r, 5000) }), 0, 0, size + 5000},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUploads(t)
			u.relative, u.least = len(name)%2 == 0, 200_000
			u.accident = tt.accident(u)
			data, desc, open := blobOf(size, 7)
			repo := repository(t, New(Options{Backoff: time.Millisecond, smallChunk: 500_000}), u.host()+"/team/web", nil)
			got, err := repo.PushBlob(t.Context(), desc, open, PushOptions{ChunkSize: tt.chunk})
			if err != nil || got.Outcome != Uploaded || got.Resumed != tt.resumed {
				t.Errorf("pushed as %+v, %v", got, err)
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			if !bytes.Equal(u.blobs[desc.Digest.String()], data) || u.received != tt.received {
				t.Errorf("the registry received %d bytes and has %d", u.received, len(u.blobs[desc.Digest.String()]))
			}
			if len(u.sessions) > 0 {
				t.Errorf("%d uploads are left open", len(u.sessions))
			}
		})
	}
}

// cut2 is cut by a registry that then has forgotten the upload.
func (u *uploads) cut2(r *http.Request, after int64) {
	defer func() { u.mu.Lock(); clear(u.sessions); u.mu.Unlock(); hurt() }()
	func() { defer func() { recover() }(); u.cut(r, after) }()
}
