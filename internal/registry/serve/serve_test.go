package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// rights is an Authorizer by repository and action.
type rights struct {
	mu    sync.Mutex
	asked []string
	err   func(repository string, action Action) error
}

func (r *rights) Authorize(_ *http.Request, repository string, action Action) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, fmt.Sprint(action, " ", repository))
	return "ann", r.err(repository, action)
}

func (r *rights) Challenge(_ *http.Request, repository string, actions ...Action) string {
	return fmt.Sprintf("Bearer realm=\"x\",scope=\"repository:%s:%s\"", repository, actions[0])
}

// What a person would lose: the client logs in when it is told how to, and shows
// what it may not do.
func TestAccess(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{errs.Unauthorized("who are you?"), 401, codeUnauthorized},
		{errs.Forbidden("ann may not pull secret/app"), 403, codeDenied},
	} {
		r := &rights{err: func(string, Action) error { return c.err }}
		p := &peer{base: registry(t, func(o *Options) { o.Access = r }).URL}
		a, err := p.want(c.status, "GET", manifestPath("secret/app", "latest"), nil)
		if err := first(err, a.code(c.code)); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(a.body), c.err.Error()) {
			t.Errorf("%s", a.body)
		}
		want := ""
		if c.status == 401 {
			want = `Bearer realm="x",scope="repository:secret/app:pull"`
		}
		if err := a.has("WWW-Authenticate", want); err != nil {
			t.Error(err)
		}
		if !slices.Equal(r.asked, []string{"pull secret/app"}) {
			t.Errorf("asked %q", r.asked)
		}
	}
}

// What a person would lose: secrets, to whoever knows a digest and asks to have
// it mounted from a repository he may not read.
func TestMountNeedsRights(t *testing.T) {
	r := &rights{err: func(string, Action) error { return nil }}
	p := &peer{base: registry(t, func(o *Options) { o.Access = r }).URL}
	dgst, err := p.push("secret", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	r.err = func(repository string, _ Action) error {
		if repository == "secret" {
			return errs.Forbidden("no")
		}
		return nil
	}
	for _, from := range []string{"&from=secret", ""} {
		if _, err := p.want(202, "POST", "/v2/mine/blobs/uploads/?mount="+dgst.String()+from, []byte{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.want(404, "HEAD", blobPath("mine", dgst), nil); err != nil {
		t.Error(err)
	}
}

func TestTooManyRequests(t *testing.T) {
	r := &rights{err: func(string, Action) error { return errdefs.ErrResourceExhausted }}
	p := &peer{base: registry(t, func(o *Options) { o.Access = r }).URL}
	a, err := p.want(429, "GET", "/v2/", nil)
	if err := first(err, a.code(codeTooManyRequests), a.has("Retry-After", "1")); err != nil {
		t.Error(err)
	}
}

// What a person would lose: a registry that is to be pulled from only, filled by
// whoever reaches it.
func TestReadOnly(t *testing.T) {
	var full depot.Reader
	writable := registry(t, func(o *Options) { full = o.Depot })
	p := &peer{base: writable.URL}
	body, err := p.tagged("r", "t")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Options){
		func(o *Options) { o.Depot, o.ReadOnly = full, true },
		func(o *Options) { o.Depot = struct{ depot.Reader }{full} },
	} {
		p := &peer{base: registry(t, change).URL}
		for method, path := range map[string]string{"POST": "/v2/r/blobs/uploads/", "PUT": manifestPath("r", "u"), "DELETE": manifestPath("r", "t")} {
			a, err := p.want(405, method, path, body, "Content-Type", ociManifest)
			if err := first(err, a.code(codeUnsupported)); err != nil {
				t.Error(err)
			}
		}
		if _, err := p.want(200, "GET", manifestPath("r", "t"), nil); err != nil {
			t.Error(err)
		}
	}
}

// upstream has one image, or fails.
type upstream struct {
	depot *depot.Depot
	err   error
	blob  []byte
}

func (u *upstream) Manifest(ctx context.Context, repository, reference string) error {
	if u.err != nil {
		return u.err
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":%d},"layers":[]}`, ociManifest, digest.FromBytes(u.blob), len(u.blob))
	m, err := parseManifest(ociManifest, body)
	if err != nil {
		return err
	}
	m.Digest = digest.FromBytes(body)
	return (*u.depot).PutManifest(ctx, repository, m, body, depot.PutOptions{Tags: []string{reference}, Sparse: true})
}

func (u *upstream) Blob(_ context.Context, repository string, dgst digest.Digest) (io.ReadCloser, depot.Info, error) {
	if dgst != digest.FromBytes(u.blob) {
		return nil, depot.Info{}, depot.BlobUnknown(repository, dgst)
	}
	return io.NopCloser(bytes.NewReader(u.blob)), depot.Info{Digest: dgst, Size: int64(len(u.blob))}, nil
}

func (u *upstream) Stat(ctx context.Context, repository string, dgst digest.Digest) (depot.Info, error) {
	_, info, err := u.Blob(ctx, repository, dgst)
	return info, err
}

// What a person would lose: the mirror's image while the registry behind it is
// down, without a word why it is old.
func TestWarning(t *testing.T) {
	u := &upstream{blob: []byte("{}")}
	p := &peer{base: registry(t, func(o *Options) {
		d := o.Depot.(depot.Depot)
		u.depot, o.Upstream = &d, u
	}).URL}
	a, err := p.want(200, "GET", manifestPath("r", "latest"), nil)
	if err := first(err, a.has("Warning", "")); err != nil {
		t.Fatal(err)
	}
	if a, err = p.want(200, "GET", blobPath("r", digest.FromBytes(u.blob)), nil); err != nil || !bytes.Equal(a.body, u.blob) {
		t.Errorf("%q, %v", a.body, err)
	}
	if _, err := p.want(200, "HEAD", blobPath("r", digest.FromBytes(u.blob)), nil); err != nil {
		t.Error(err)
	}
	if _, err := p.want(404, "GET", blobPath("r", digest.FromString("no")), nil); err != nil {
		t.Error(err)
	}
	u.err = errs.Unavailable("cannot reach \"registry.example\":\r\n %s", strings.Repeat("nö ", 5000))
	if a, err = p.want(200, "GET", manifestPath("r", "latest"), nil); err != nil {
		t.Fatal(err)
	}
	got := a.header.Get("Warning")
	if !strings.HasPrefix(got, `299 - "cannot reach 'registry.example':`) || !strings.HasSuffix(got, `"`) || len(got) > 4096 || strings.Count(got, `"`) != 2 {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if _, err := p.want(503, "GET", manifestPath("r", "never-seen"), nil); err != nil {
		t.Error(err)
	}
}

// What a person would lose: webhooks and the history of who pushed what.
func TestEvents(t *testing.T) {
	var mu sync.Mutex
	var events []Event
	p := &peer{base: registry(t, func(o *Options) {
		o.Notify = func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
		o.Access = &rights{err: func(string, Action) error { return nil }}
	}).URL}
	body, err := p.tagged("r", "t")
	if err != nil {
		t.Fatal(err)
	}
	dgst := digest.FromBytes(body)
	config := digest.FromString(`{"architecture":"amd64","os":"linux"}`)
	for _, step := range [][2]string{
		{"GET", manifestPath("r", "t")}, {"HEAD", manifestPath("r", "t")},
		{"POST", "/v2/other/blobs/uploads/?from=r&mount=" + config.String()},
		{"DELETE", manifestPath("r", "t")}, {"DELETE", manifestPath("r", dgst.String())}, {"DELETE", blobPath("r", config)},
	} {
		if a, err := p.do(step[0], step[1], []byte{}); err != nil || a.status >= 300 {
			t.Fatal(a, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	var got []string
	for _, e := range events {
		if e.User != "ann" || e.Time.IsZero() || e.Remote == "" || e.Descriptor.Digest == "" {
			t.Errorf("%+v", e)
		}
		got = append(got, strings.Join([]string{string(e.Action), e.Repository, e.Tag, e.From, e.Descriptor.MediaType}, " "))
	}
	want := []string{
		"push r   " + octets, "push r   " + octets, "push r t  " + ociManifest, "pull r t  " + ociManifest,
		"mount other  r " + octets, "delete r t  " + ociManifest, "delete r   " + ociManifest, "delete r   " + octets,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nnot\n%q", got, want)
	}
}

// What a person would lose: hours with a message that does not say what is wrong.
func TestManifestsThatAreRefused(t *testing.T) {
	p := &peer{base: registry(t, nil).URL}
	good, err := p.image("r")
	if err != nil {
		t.Fatal(err)
	}
	change := func(from, to string) string { return strings.Replace(string(good), from, to, 1) }
	for _, c := range []struct{ name, mediaType, body, want string }{
		{"schema 1", dockerSigned1, `{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		{"schema 1 unsaid", ociManifest, `{"schemaVersion":1}`, "schema 1"},
		{"html", ociManifest, `<html>`, "no JSON document"},
		{"no version", ociManifest, `{}`, "schemaVersion 0"},
		{"another type", "application/vnd.example", string(good), "no manifest this registry knows"},
		{"two types", ociManifest, change(ociManifest, ociIndex), "its Content-Type says"},
		{"no config", ociManifest, `{"schemaVersion":2,"layers":[]}`, "no config"},
		{"both", ociManifest, change(`"layers"`, `"manifests":[],"layers"`), "could take it for an index"},
		{"both as index", ociIndex, change(ociManifest, ociIndex), "could take it for the manifest"},
		{"bad digest", ociManifest, change(`"digest":"sha256:`, `"digest":"sha256:../`), "is no digest"},
		{"negative", ociManifest, change(`"size":`, `"size":-`), "has the size -"},
		{"bad subject", ociManifest, change(`"layers"`, `"subject":{"digest":"x"},"layers"`), "subject"},
	} {
		a, err := p.want(400, "PUT", manifestPath("r", "t"), []byte(c.body), "Content-Type", c.mediaType)
		if err := first(err, a.code(codeManifestInvalid)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if !strings.Contains(string(a.body), c.want) {
			t.Errorf("%s: %s does not say %q", c.name, a.body, c.want)
		}
	}
	// What is like them and good.
	foreign := change(`"layers":[`, `"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","size":5,"digest":"`+digest.FromString("elsewhere").String()+`","urls":["https://example.com/layer"]},`)
	if err := p.put("r", "foreign", []byte(foreign)); err != nil {
		t.Error(err)
	}
	if _, err := p.want(201, "PUT", manifestPath("r", "unsaid"), good); err != nil {
		t.Error(err)
	}
	index := []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"x/y","size":1,"digest":"` + digest.FromString("absent").String() + `"}]}`)
	a, err := p.want(404, "PUT", manifestPath("r", "index"), index, "Content-Type", ociIndex)
	if err := first(err, a.code(codeManifestBlobUnknown)); err != nil {
		t.Error(err)
	}
	sparse := &peer{base: registry(t, func(o *Options) { o.Sparse = true }).URL}
	if _, err := sparse.want(201, "PUT", manifestPath("r", "index"), index, "Content-Type", ociIndex); err != nil {
		t.Error(err)
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, seed := range []string{
		`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}`,
		`{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}],"subject":{}}`,
		`{"schemaVersion":1}`, `[]`, `null`, `{"schemaVersion":2,"mediaType":"` + dockerList + `","annotations":{"a":"b"}}`,
	} {
		f.Add("", []byte(seed))
		f.Add(ocispec.MediaTypeImageIndex+"; a=b", []byte(seed))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		m, err := parseManifest(contentType, body)
		if err != nil {
			return
		}
		if m.Size != int64(len(body)) || m.MediaType == "" {
			t.Errorf("%+v", m)
		}
		for _, dgst := range append(m.Names(), m.Subject) {
			if dgst != "" && depot.CheckDigest(dgst) != nil {
				t.Errorf("names %q", dgst)
			}
		}
	})
}

func FuzzRoute(f *testing.F) {
	for _, seed := range []string{"/v2/", "/v2/a/b/manifests/t", "/v2/a/blobs/uploads/x", "/v2/a/blobs/sha256:x", "/v2/a/tags/list", "/v2//manifests/", "/v2/blobs/uploads/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := http.NewRequest("GET", "http://x/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path = path
		rq := &request{Request: r}
		if _, err := rq.route(); err == nil && rq.repository != "" && depot.CheckRepository(rq.repository) != nil {
			t.Errorf("%q reaches repository %q", path, rq.repository)
		}
	})
}
