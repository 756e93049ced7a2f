package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tokens is a token server as Docker's specification has it, on an address of
// its own, with both of its forms: GET with a password, POST with a refresh
// token, which changes each time. It protects a registry.
type tokens struct {
	*httptest.Server
	lifetime time.Duration // what it says
	uses     int           // how many requests a token is good for; 0 is any number

	mu      sync.Mutex
	issued  map[string]*grant
	asked   []string
	refresh string // the one that is valid
	n       int
}

type grant struct {
	scopes []string
	used   int
}

func newTokens(t testing.TB) *tokens {
	s := &tokens{issued: map[string]*grant{}, refresh: "r0", lifetime: time.Hour}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.ParseForm()
	scopes := strings.Fields(strings.Join(r.Form["scope"], " "))
	answer := map[string]any{"expires_in": s.lifetime.Seconds()}
	user := "nobody"
	if name, password, ok := r.BasicAuth(); ok {
		if user = name; password != "secret" {
			w.WriteHeader(401)
			io.WriteString(w, `{"details":"incorrect username or password"}`)
			return
		}
		if r.Form.Get("offline_token") == "true" {
			answer["refresh_token"] = s.refresh
		}
	}
	if r.Method == http.MethodPost {
		if r.Form.Get("grant_type") != "refresh_token" || r.Form.Get("refresh_token") != s.refresh || r.Form.Get("client_id") == "" {
			w.WriteHeader(401)
			return
		}
		user = "the identity"
		s.refresh += "+"
		answer["refresh_token"] = s.refresh
	}
	s.asked = append(s.asked, user+" "+strings.Join(scopes, " "))
	if user == "nobody" {
		scopes = slices.DeleteFunc(scopes, func(scope string) bool { return strings.Contains(scope, "push") })
	}
	s.n++
	token := fmt.Sprintf("t%d", s.n)
	s.issued[token] = &grant{scopes: scopes}
	answer["token"] = token
	json.NewEncoder(w).Encode(answer)
}

func (s *tokens) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.asked
	s.asked = nil
	return list
}

// admit tells whether a request of the registry carries a token for it, and
// answers it otherwise.
func (s *tokens) admit(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs")
	repo, _, _ = strings.Cut(repo, "/manifests")
	action := "pull"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		action = "pull,push"
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	g := s.issued[token]
	refusal := ""
	switch {
	case g == nil || s.uses > 0 && g.used >= s.uses:
		refusal = ",error=\"invalid_token\""
	case repo == "": // the base, for a login
		return true
	case !slices.ContainsFunc(g.scopes, func(scope string) bool { return covers(scope, "repository:"+repo+":"+action) }):
		refusal = ",error=\"insufficient_scope\""
	default:
		g.used++
		return true
	}
	scope := ""
	if repo != "" {
		scope = fmt.Sprintf(",scope=\"repository:%s:%s\"", repo, action)
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="reg"%s%s`, s.URL, scope, refusal))
	w.WriteHeader(401)
	io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	return false
}

// protected is a registry that takes uploads behind the token server.
func protected(t testing.TB, s *tokens) *uploads {
	u := newUploads(t)
	u.accident = func(w http.ResponseWriter, r *http.Request) bool { return !s.admit(w, r) }
	// The base is not open either.
	inner := u.Config.Handler
	u.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" && !s.admit(w, r) {
			return
		}
		inner.ServeHTTP(w, r)
	})
	return u
}

// One token serves a whole push, and the registry is asked for no more rights
// than that needs.
func TestTokenPerScope(t *testing.T) {
	s := newTokens(t)
	u := protected(t, s)
	repo := repository(t, New(quick(Settings{HostDirs: []string{}})), u.host()+"/team/web", &AuthConfig{Username: "me", Password: "secret"})
	_, desc, open := blobOf(300_000, 1)
	push(t, repo, desc, open, PushOptions{ChunkSize: 50_000}, PushResult{Outcome: Uploaded})
	if got := s.questions(); !slices.Equal(got, []string{"me repository:team/web:pull,push"}) {
		t.Errorf("asked for %q", got)
	}
	_, other, open := blobOf(10, 2)
	push(t, repo, other, open, PushOptions{MountFrom: []string{"team/base"}}, PushResult{Outcome: Uploaded})
	if got := s.questions(); !slices.Equal(got, []string{"me repository:team/web:pull,push repository:team/base:pull"}) {
		t.Errorf("for a mount, asked for %q", got)
	}
	nobody := repository(t, New(quick(Settings{HostDirs: []string{}})), u.host()+"/team/web", nil)
	_, third, open := blobOf(10, 3)
	if _, err := nobody.PushBlob(t.Context(), third, open, PushOptions{}); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("pushed as nobody: %v", err)
	}
}

// A token that ends in the middle of a push or a pull is replaced, whether it
// told of that or not, and no byte is sent twice for it.
func TestTokensEnd(t *testing.T) {
	for name, set := range map[string]func(*tokens){
		// Shorter than any request takes: each finds the last one's token ended.
		"as it said":    func(s *tokens) { s.lifetime = time.Nanosecond },
		"all of sudden": func(s *tokens) { s.uses = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTokens(t)
			set(s)
			u := protected(t, s)
			repo := repository(t, New(quick(Settings{HostDirs: []string{}})), u.host()+"/team/web", &AuthConfig{IdentityToken: "r0"})
			data, desc, open := blobOf(1<<20, 1)
			push(t, repo, desc, open, PushOptions{ChunkSize: 250_000}, PushResult{Outcome: Uploaded})
			if !bytes.Equal(u.blobs[desc.Digest.String()], data) || u.received != desc.Size {
				t.Errorf("%d bytes were received", u.received)
			}
			got := s.questions()
			if len(got) < 3 || slices.ContainsFunc(got, func(q string) bool { return q != "the identity repository:team/web:pull,push" }) {
				t.Errorf("asked for %q", got)
			}
		})
	}
}

// Parallel requests that lack a token get one together.
func TestTokenOnce(t *testing.T) {
	s := newTokens(t)
	u := protected(t, s)
	repo := repository(t, New(quick(Settings{HostDirs: []string{}})), u.host()+"/team/web", &AuthConfig{Username: "me", Password: "secret"})
	if _, err := repo.hasBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x")}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	clear(s.issued) // as when the registry was restarted with another key
	s.mu.Unlock()
	s.questions()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := repo.hasBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(i))}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := len(s.questions()); got > 2 {
		t.Errorf("the token server was asked %d times", got)
	}
}

// A login gives the token that is kept in place of the password.
func TestLogin(t *testing.T) {
	s := newTokens(t)
	u := protected(t, s)
	c := New(quick(Settings{HostDirs: []string{}}))
	identity, err := c.Login(t.Context(), &AuthConfig{Username: "me", Password: "secret", ServerAddress: u.host()})
	if err != nil || identity != "r0" {
		t.Errorf("got %q, %v", identity, err)
	}
	// It is good for another login, which changes it.
	identity, err = c.Login(t.Context(), &AuthConfig{Username: "me", IdentityToken: identity, ServerAddress: "http://" + u.host() + "/v1/"})
	if err != nil || identity != "r0+" {
		t.Errorf("got %q, %v", identity, err)
	}
	for name, cred := range map[string]*AuthConfig{
		"password": {Username: "me", Password: "wrong", ServerAddress: u.host()},
		"identity": {Username: "me", IdentityToken: "wrong", ServerAddress: u.host()},
	} {
		if _, err := c.Login(t.Context(), cred); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("wrong %s: %v", name, err)
		}
	}
	if _, err := c.Login(t.Context(), &AuthConfig{ServerAddress: "https://"}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
}

// What a registry says of its token server is not followed blindly.
func TestRealm(t *testing.T) {
	answer := ""
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && answer != "":
			io.WriteString(w, answer)
		case r.URL.Path != "/v2/":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.URL.Query().Get("realm")+`"`)
			w.WriteHeader(401)
		}
	})
	e := New(quick(Settings{HostDirs: []string{}})).endpoint(host, hostConfig{}, credential{})
	for realm, want := range map[string]string{
		"":               "names no token server that can be asked",
		"ftp://x/":       "names no token server that can be asked",
		"http://%zz/":    "names no token server that can be asked",
		"/token":         "names no token server that can be asked",
		"http://[::1]:1": "cannot reach registry [::1]:1",
	} {
		_, err := e.do(t.Context(), "web", call{method: "GET", path: "/x?realm=" + strings.ReplaceAll(realm, "%", "%25")})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", realm, err)
		}
	}
	for text, want := range map[string]string{
		`{}`:                 "sent no token",
		`<html>`:             "sent a token that cannot be read",
		`{"token":"a\r\nb"}`: "sent no token",
	} {
		answer = text
		_, err := e.do(t.Context(), "web", call{method: "GET", path: "/x?realm=http://" + host + "/token"})
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	a := &authorizer{host: "r.example", secure: true, insecure: func(context.Context, string) bool { return false }}
	if _, err := a.realm(t.Context(), challenge{params: map[string]string{"realm": "http://auth.example/token"}}); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("got %v", err)
	}
}

// A registry that answers a push with anything but what it should is told of in
// a sentence, soon.
func TestPushToNonsense(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	_, desc, open := blobOf(100_000, 1)
	for name, tt := range map[string]struct {
		method string
		answer http.HandlerFunc
		class  error
		want   string
	}{
		"a web page": {"HEAD", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403); io.WriteString(w, "<html>") }, errdefs.ErrPermissionDenied, "answered 403"},
		"no place":   {"POST", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202) }, errdefs.ErrInvalidArgument, "opened an upload and did not say where"},
		"a bad place": {"POST", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://%zz")
			w.WriteHeader(202)
		}, errdefs.ErrInvalidArgument, "did not say where"},
		"read only": {"POST", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(405)
			io.WriteString(w, `{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}`)
		}, nil, "unsupported: The operation is unsupported."},
		"another digest": {"PUT", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
			w.WriteHeader(201)
		}, errdefs.ErrInvalidArgument, "took blob " + desc.Digest.String() + " in as " + digest.FromString("x").String()},
		"never enough": {"PUT", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, errdefs.ErrUnavailable, "answered 503"},
		"silence": {"PUT", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, errdefs.ErrUnavailable, "the registry sent nothing for too long"},
		"a cut":     {"POST", func(w http.ResponseWriter, r *http.Request) { hurt() }, errdefs.ErrUnavailable, "cannot reach registry"},
		"elsewhere": {"PUT", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://127.0.0.1:1/", 307) }, nil, "answered 307"},
		"a quota": {"PUT", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(507)
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, "x")
		}, nil, "answered 507"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUploads(t)
			u.accident = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != tt.method {
					return false
				}
				tt.answer(w, r)
				return true
			}
			o := quick(Settings{HostDirs: []string{}})
			o.Attempts = 2
			if name == "silence" {
				o.IdleTimeout = 20 * time.Millisecond
			}
			_, err := repository(t, New(o), u.host()+"/team/web", nil).PushBlob(t.Context(), desc, open, PushOptions{})
			if err == nil || tt.class != nil && !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			if len(u.sessions) > 0 {
				t.Errorf("%d uploads are left open", len(u.sessions))
			}
		})
	}
}

// What goes wrong on our side is said as it is, and not tried again.
func TestPushFromBrokenDisk(t *testing.T) {
	broken := errors.New("input/output error")
	_, desc, _ := blobOf(100_000, 1)
	for name, open := range map[string]func(context.Context, int64) (io.ReadCloser, error){
		"open": func(context.Context, int64) (io.ReadCloser, error) { return nil, broken },
		"read": func(context.Context, int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(make([]byte, 50_000)), iotestErr{broken})), nil
		},
	} {
		u := newUploads(t)
		opened := 0
		counted := func(ctx context.Context, at int64) (io.ReadCloser, error) { opened++; return open(ctx, at) }
		_, err := repository(t, New(quick(Settings{HostDirs: []string{}})), u.host()+"/team/web", nil).PushBlob(t.Context(), desc, counted, PushOptions{})
		if !errors.Is(err, broken) || opened != 1 {
			t.Errorf("%s: %v after %d times", name, err, opened)
		}
	}
	u := newUploads(t)
	short := func(context.Context, int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(make([]byte, 10))), nil
	}
	if _, err := repository(t, New(quick(Settings{HostDirs: []string{}})), u.host()+"/team/web", nil).PushBlob(t.Context(), desc, short, PushOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if _, err := repository(t, New(quick(Settings{HostDirs: []string{}})), u.host()+"/team/web", nil).PushBlob(t.Context(), desc, func(context.Context, int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(make([]byte, desc.Size))), nil
	}, PushOptions{}); err == nil || !strings.Contains(err.Error(), "digest invalid: provided digest did not match") {
		t.Errorf("other bytes: %v", err)
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }
