package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stand is a registry with a blob and a tagged manifest, that remembers what it
// was asked and as whom.
type stand struct {
	*httptest.Server
	body string // of the manifest under every tag
	blob []byte
	fail func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	asked []string
}

func newStand(t testing.TB, body string, blob []byte) *stand {
	s := &stand{body: body, blob: blob}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *stand) host() string { return s.Listener.Addr().String() }

func (s *stand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	s.mu.Lock()
	line := r.Method + " " + r.URL.RequestURI()
	for _, name := range []string{"Authorization", "X-Private"} {
		if v := r.Header.Get(name); v != "" {
			line += " " + v
		}
	}
	s.asked = append(s.asked, line)
	s.mu.Unlock()
	if s.fail != nil && s.fail(w, r) {
		return
	}
	_, ref, _ := strings.Cut(r.URL.Path, "/manifests/")
	switch {
	case ref != "" && (!strings.HasPrefix(ref, "sha256:") || ref == digest.FromString(s.body).String()):
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		io.WriteString(w, s.body)
	case s.blob != nil && strings.HasSuffix(r.URL.Path, "/blobs/"+digest.FromBytes(s.blob).String()):
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.blob))
	default:
		w.WriteHeader(404)
	}
}

// questions returns what was asked since the last time.
func (s *stand) questions() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := strings.Join(s.asked, "\n")
	s.asked = nil
	return list
}

func manifestOf(n int) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"n":"%d"}}`, ocispec.MediaTypeImageManifest, n)
}

func quick(s Settings) Options {
	return Options{Settings: s, Backoff: time.Millisecond, Attempts: 3, IdleTimeout: 5 * time.Second}
}

// Mirrors are asked first, for what they may be asked, and nobody sees what is
// meant for another.
func TestMirrors(t *testing.T) {
	data, desc, _ := blobOf(1000, 1)
	origin, first, second := newStand(t, manifestOf(1), data), newStand(t, manifestOf(1), nil), newStand(t, manifestOf(1), data)
	origin.fail = func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); ok {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(401)
		return true
	}
	dir := t.TempDir()
	write(t, dir+"/"+origin.host()+"/hosts.toml", fmt.Sprintf(`
		server = "http://%s"
		[host."http://%s"]
		capabilities = ["pull"]
		[host."http://%s/sub"]
		capabilities = ["pull", "resolve"]
		[host."http://%[3]s/sub".header]
		X-Private = "for the second"`, origin.host(), first.host(), second.host()))
	c := New(quick(Settings{HostDirs: []string{dir}}))
	repo := repository(t, c, origin.host()+"/team/web", &AuthConfig{Username: "me", Password: "secret"})
	ns := "ns=" + url.QueryEscape(origin.host())

	if _, _, err := repo.Manifest(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if got, want := second.questions(), "GET /sub/v2/team/web/manifests/1?"+ns+" for the second"; got != want {
		t.Errorf("the mirror that resolves was asked %s, want %s", got, want)
	}
	if got := first.questions() + origin.questions(); got != "" {
		t.Errorf("others were asked for the tag: %s", got)
	}
	if got := fetched(t, repo, desc); !bytes.Equal(got, data) {
		t.Error("another blob")
	}
	blob := "/team/web/blobs/" + desc.Digest.String()
	if got, want := first.questions()+"|"+second.questions()+"|"+origin.questions(),
		"GET /v2"+blob+"?"+ns+"|GET /sub/v2"+blob+"?"+ns+" for the second|"; got != want {
		t.Errorf("for a blob:\n got %s\nwant %s", got, want)
	}
	// Where all mirrors fail, the registry is asked, as the person.
	second.fail = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(404); return true }
	if got := fetched(t, repo, desc); !bytes.Equal(got, data) {
		t.Error("another blob")
	}
	if got := origin.questions(); !strings.HasSuffix(got, "Basic bWU6c2VjcmV0") {
		t.Errorf("the registry was asked %s", got)
	}
	// And its refusal is what the person reads.
	origin.fail = func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(404)
		io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"of the registry"}]}`)
		return true
	}
	if _, _, err := repo.Manifest(t.Context(), "2"); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "of the registry") {
		t.Errorf("got %v", err)
	}
}

// A mirror gets credentials that name it, and is pushed to when it may be.
func TestMirrorOfItsOwn(t *testing.T) {
	u := newUploads(t)
	origin := newStand(t, manifestOf(1), nil)
	dir := t.TempDir()
	write(t, dir+"/"+origin.host()+"/hosts.toml", fmt.Sprintf(`[host."http://%s"]`, u.host()))
	c := New(quick(Settings{HostDirs: []string{dir}}))
	seen := ""
	u.accident = func(w http.ResponseWriter, r *http.Request) bool {
		if user, _, ok := r.BasicAuth(); ok {
			seen = user
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(401)
		return true
	}
	_, desc, open := blobOf(1000, 1)
	repo := repository(t, c, origin.host()+"/team/web", &AuthConfig{Username: "me", Password: "p", ServerAddress: u.host()})
	push(t, repo, desc, open, PushOptions{}, PushResult{Outcome: Uploaded})
	if seen != "me" || origin.questions() != "" {
		t.Errorf("pushed as %q", seen)
	}
	repo = repository(t, c, origin.host()+"/team/web", &AuthConfig{Username: "me", Password: "p", ServerAddress: origin.host()})
	if _, err := repo.PushBlob(t.Context(), desc, open, PushOptions{}); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("the mirror was shown what is not for it: %v", err)
	}
	write(t, dir+"/"+origin.host()+"/hosts.toml", `capabilities = ["pull", "resolve"]`)
	repo = repository(t, c, origin.host()+"/team/web", nil)
	if _, err := repo.PushBlob(t.Context(), desc, open, PushOptions{}); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("pushed where that is not allowed: %v", err)
	}
}

// Mirrors of Docker Hub are asked before it, also when they are dead.
func TestHubMirrors(t *testing.T) {
	mirror := newStand(t, manifestOf(1), nil)
	dead := newStand(t, "", nil)
	dead.Close()
	s := Settings{Mirrors: []string{"http://" + dead.host(), "http://" + mirror.host() + "/hub"}, HostDirs: []string{}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	c := New(quick(s))
	repo := repository(t, c, "alpine", &AuthConfig{Username: "me", Password: "secret", ServerAddress: "https://index.docker.io/v1/"})
	if _, err := repo.Resolve(t.Context(), "3"); err != nil {
		t.Fatal(err)
	}
	if got := mirror.questions(); !strings.HasPrefix(got, "HEAD /hub/v2/library/alpine/manifests/3") || strings.Contains(got, "Basic") {
		t.Errorf("the mirror was asked %s", got)
	}
	// It is for Docker Hub only.
	other := newStand(t, manifestOf(2), nil)
	if _, _, err := repository(t, c, other.host()+"/alpine", nil).Manifest(t.Context(), "3"); err != nil || mirror.questions() != "" {
		t.Error("asked for another registry's image", err)
	}
}

// Neighbours are asked first for what has a digest, and for a tag only when its
// registry is silent, which the person is told.
func TestNeighbours(t *testing.T) {
	data, desc, _ := blobOf(1000, 1)
	origin, neighbour, dead := newStand(t, manifestOf(2), data), newStand(t, manifestOf(1), data), newStand(t, "", nil)
	dead.Close()
	c := New(quick(Settings{Neighbours: []string{dead.host(), neighbour.host()}, HostDirs: []string{}}))
	repo := repository(t, c, origin.host()+"/team/web", &AuthConfig{Username: "me", Password: "secret"})
	var notices []string
	ctx := WithNotices(t.Context(), func(s string) { notices = append(notices, s) })

	if _, got, err := repo.Manifest(ctx, "latest"); err != nil || string(got) != manifestOf(2) {
		t.Fatalf("got %s, %v", got, err)
	}
	if got := neighbour.questions(); got != "" {
		t.Errorf("the neighbour was asked %s", got)
	}
	origin.questions()
	if _, got, err := repo.Manifest(ctx, digest.FromString(manifestOf(1)).String()); err != nil || string(got) != manifestOf(1) {
		t.Errorf("got %s, %v", got, err)
	}
	if got := fetched(t, repo, desc); !bytes.Equal(got, data) {
		t.Error("another blob")
	}
	if got := origin.questions(); got != "" {
		t.Errorf("the registry was asked %s", got)
	}
	if got := neighbour.questions(); strings.Count(got, "?ns="+url.QueryEscape(origin.host())) != 2 || strings.Contains(got, "Basic") {
		t.Errorf("the neighbour was asked %s", got)
	}
	// What it does not have, or lies about, the registry has.
	neighbour.fail = func(w http.ResponseWriter, r *http.Request) bool { io.WriteString(w, manifestOf(7)); return true }
	if _, got, err := repo.Manifest(ctx, digest.FromString(manifestOf(2)).String()); err != nil || string(got) != manifestOf(2) {
		t.Errorf("got %s, %v", got, err)
	}
	neighbour.fail = nil
	// A tag the registry does not have is no neighbour's business.
	origin.fail = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(404); return true }
	if _, _, err := repo.Manifest(ctx, "latest"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if len(notices) > 0 {
		t.Errorf("told %q", notices)
	}
	origin.Close()
	if _, got, err := repo.Manifest(ctx, "latest"); err != nil || string(got) != manifestOf(1) {
		t.Errorf("got %s, %v", got, err)
	}
	if want := fmt.Sprintf("registry %s does not answer: latest is what neighbour %s has under that name, which may be old", origin.host(), neighbour.host()); len(notices) != 1 || notices[0] != want {
		t.Errorf("told %q, want %q", notices, want)
	}
	neighbour.Close()
	_, _, err := repo.Manifest(ctx, "latest")
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "cannot reach registry "+origin.host()) {
		t.Errorf("got %v", err)
	}
}

// A neighbour that dies in the middle of a blob costs nothing but what it had
// not sent.
func TestNeighbourDies(t *testing.T) {
	data, desc, _ := blobOf(1<<20, 1)
	origin, neighbour := newStand(t, "", data), newStand(t, "", data)
	neighbour.fail = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:400_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	var ranges string
	origin.fail = func(w http.ResponseWriter, r *http.Request) bool { ranges = r.Header.Get("Range"); return false }
	c := New(quick(Settings{Neighbours: []string{neighbour.host()}, HostDirs: []string{}}))
	repo := repository(t, c, origin.host()+"/team/web", nil)
	if got := fetched(t, repo, desc); !bytes.Equal(got, data) {
		t.Error("another blob")
	}
	if ranges != "bytes=400000-" {
		t.Errorf("the registry was asked for %q", ranges)
	}
	neighbour.questions()
	fetched(t, repo, desc)
	if got := neighbour.questions(); got != "" {
		t.Errorf("it was asked again: %s", got)
	}
}

// The settings change while the client is used.
func TestConfigure(t *testing.T) {
	neighbour, origin := newStand(t, manifestOf(1), nil), newStand(t, manifestOf(1), nil)
	c := New(quick(Settings{HostDirs: []string{}}))
	ask := func() string {
		t.Helper()
		if _, _, err := repository(t, c, origin.host()+"/web", nil).Manifest(t.Context(), digest.FromString(manifestOf(1)).String()); err != nil {
			t.Fatal(err)
		}
		return neighbour.questions()
	}
	if got := ask(); got != "" {
		t.Errorf("asked %s", got)
	}
	c.Configure(Settings{Neighbours: []string{neighbour.host()}, HostDirs: []string{}})
	if got := ask(); got == "" {
		t.Error("the neighbour was not asked")
	}
}

// Redirects take along neither credentials nor what a configuration adds.
func TestRedirectOfHeaders(t *testing.T) {
	elsewhere := newStand(t, manifestOf(1), nil)
	origin := newStand(t, manifestOf(1), nil)
	origin.fail = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return true
		}
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	dir := t.TempDir()
	write(t, dir+"/"+origin.host()+"/hosts.toml", "[header]\nX-Private = \"key\"\n")
	repo := repository(t, New(quick(Settings{HostDirs: []string{dir}})), origin.host()+"/web", &AuthConfig{Username: "me", Password: "p"})
	if _, _, err := repo.Manifest(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if got := origin.questions(); !strings.Contains(got, "Basic bWU6cA== key") {
		t.Errorf("the registry was asked %s", got)
	}
	if got := elsewhere.questions(); got != "GET /v2/web/manifests/1" {
		t.Errorf("the other server was asked %s", got)
	}
	// A push is not led away.
	if _, err := repo.PushManifest(t.Context(), "1", ocispec.MediaTypeImageManifest, []byte(manifestOf(1))); err == nil {
		t.Error("the push went elsewhere")
	}
	if got := elsewhere.questions(); got != "" {
		t.Errorf("the other server was asked %s", got)
	}
}

// A person learns that a registry limits them, from the error and before it.
func TestRateLimit(t *testing.T) {
	s := newStand(t, manifestOf(1), nil)
	remaining := 9
	s.fail = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", fmt.Sprintf("%d;w=21600", remaining))
		w.Header().Set("Docker-RateLimit-Source", "192.0.2.1")
		if remaining > 0 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(429)
		io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`)
		return true
	}
	repo := repository(t, New(quick(Settings{HostDirs: []string{}})), s.host()+"/web", nil)
	var notices []string
	ctx := WithNotices(t.Context(), func(s string) { notices = append(notices, s) })
	if _, _, err := repo.Manifest(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("registry %s limits how often it is asked: 9 of 100 requests in 6h0m0s are left for 192.0.2.1", s.host()); len(notices) != 1 || notices[0] != want {
		t.Errorf("told %q", notices)
	}
	remaining = 0
	_, _, err := repo.Manifest(ctx, "1")
	want := "toomanyrequests: You have reached your pull rate limit. (0 of 100 requests in 6h0m0s are left for 192.0.2.1)"
	if !errors.Is(err, errdefs.ErrUnavailable) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := strings.Count(s.questions(), "\n"); got != 3 {
		t.Errorf("asked %d times", got+1)
	}
}

// A wait that a registry asks for is said, and ends when the person goes.
func TestRetryAfter(t *testing.T) {
	s := newStand(t, manifestOf(1), nil)
	s.fail = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
		return true
	}
	repo := repository(t, New(quick(Settings{HostDirs: []string{}})), s.host()+"/web", nil)
	ctx, cancel := context.WithCancel(t.Context())
	var told string
	_, _, err := repo.Manifest(WithNotices(ctx, func(s string) { told = s; cancel() }), "1")
	if !errors.Is(err, context.Canceled) || told != fmt.Sprintf("registry %s answered 503 Service Unavailable: trying again in 30s", s.host()) {
		t.Errorf("got %v after %q", err, told)
	}
}
