package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`

// serve starts a server and returns its address as a part of a name.
func serve(t testing.TB, h http.HandlerFunc) (*httptest.Server, string) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s, s.Listener.Addr().String()
}

func open(t testing.TB, host string, cred *AuthConfig, opts Options) *Repository {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(host + "/team/web")
	if err != nil {
		t.Fatal(err)
	}
	opts.Backoff = time.Millisecond
	repo, err := New(opts).Repository(t.Context(), named, cred)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func TestAuth(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret"))
	var asked atomic.Value
	var issued atomic.Int32
	token := ""
	var mu sync.Mutex
	issue := func(w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		token = fmt.Sprintf("t%d", issued.Add(1))
		fmt.Fprintf(w, `{"token":%q,"access_token":%q}`, token, token)
	}
	var host string
	_, host = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.URL.Path == "/token" && r.Method == http.MethodPost:
			r.ParseForm()
			asked.Store(r.Form.Get("grant_type") + " " + r.Form.Get("refresh_token"))
			issue(w)
		case r.URL.Path == "/token":
			asked.Store(r.Header.Get("Authorization") + " " + r.URL.Query().Get("scope"))
			if a := r.Header.Get("Authorization"); a != "" && a != basic {
				w.WriteHeader(401)
				fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`)
				return
			}
			issue(w)
		default:
			mu.Lock()
			ok := token != "" && r.Header.Get("Authorization") == "Bearer "+token
			mu.Unlock()
			if ok || r.Header.Get("Authorization") == "Bearer given" {
				fmt.Fprint(w, manifest)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="reg",scope="repository:team/web:pull"`, host))
			w.WriteHeader(401)
		}
	})
	for _, c := range []struct {
		name string
		cred *AuthConfig
		want string // what the token server is asked; empty is not at all
	}{
		{"nobody", nil, " repository:team/web:pull"},
		{"user and password", &AuthConfig{Username: "me", Password: "secret"}, basic + " repository:team/web:pull"},
		{"both in auth", &AuthConfig{Auth: base64.StdEncoding.EncodeToString([]byte("me:secret"))}, basic + " repository:team/web:pull"},
		{"identity token", &AuthConfig{IdentityToken: "refresh"}, "refresh_token refresh"},
		{"registry token", &AuthConfig{RegistryToken: "given"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked.Store("")
			mu.Lock()
			token = ""
			mu.Unlock()
			repo := open(t, host, c.cred, Options{})
			if _, _, err := repo.Manifest(t.Context(), "1"); err != nil {
				t.Fatal(err)
			}
			if asked.Load() != c.want {
				t.Errorf("the token server was asked %q, want %q", asked.Load(), c.want)
			}
		})
	}
	t.Run("a token that ends in the middle", func(t *testing.T) {
		repo := open(t, host, &AuthConfig{Username: "me", Password: "secret"}, Options{})
		for range 2 {
			if _, _, err := repo.Manifest(t.Context(), "1"); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			token = "another"
			mu.Unlock()
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		repo := open(t, host, &AuthConfig{Username: "me", Password: "wrong"}, Options{})
		_, _, err := repo.Manifest(t.Context(), "1")
		if !errors.Is(err, errdefs.ErrUnauthenticated) || !strings.Contains(err.Error(), "incorrect username or password") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBasic(t *testing.T) {
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user == "me" && password == "secret" || r.URL.Path == "/v2/" {
			fmt.Fprint(w, manifest)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
		w.WriteHeader(401)
	})
	if _, _, err := open(t, host, &AuthConfig{Username: "me", Password: "secret"}, Options{}).Manifest(t.Context(), "1"); err != nil {
		t.Error(err)
	}
	_, _, err := open(t, host, nil, Options{}).Manifest(t.Context(), "1")
	if !errors.Is(err, errdefs.ErrUnauthenticated) || !strings.Contains(err.Error(), "no basic auth credentials") {
		t.Errorf("got %v", err)
	}
}

// A repository that a good token does not open is denied, not a failed login:
// it is how a registry hides whether there is one.
func TestInsufficientScope(t *testing.T) {
	var host string
	_, host = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			fmt.Fprint(w, `{"token":"x"}`)
		case r.URL.Path != "/v2/":
			challenge := fmt.Sprintf(`Bearer realm="http://%s/token"`, host)
			if r.Header.Get("Authorization") != "" {
				challenge += `,error="insufficient_scope"`
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(401)
			fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		}
	})
	_, _, err := open(t, host, nil, Options{}).Manifest(t.Context(), "1")
	if !errors.Is(err, errdefs.ErrPermissionDenied) || err.Error() != "denied: requested access to the resource is denied" {
		t.Errorf("got %v", err)
	}
}

// Credentials stay with the registry when it sends us elsewhere, another port
// of the same host included.
func TestRedirect(t *testing.T) {
	data := "the blob"
	var leaked atomic.Value
	leaked.Store("")
	_, elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get("Authorization"))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(data))
	})
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
			w.WriteHeader(401)
			return
		}
		http.Redirect(w, r, "http://"+elsewhere+"/storage?sig=1", http.StatusTemporaryRedirect)
	})
	repo := open(t, host, &AuthConfig{Username: "me", Password: "secret"}, Options{})
	r, err := repo.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString(data), Size: int64(len(data))}, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != "blob" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if leaked.Load() != "" {
		t.Errorf("credentials went to another server: %s", leaked.Load())
	}
}

// A registry that says nothing any more is given up and asked again.
func TestHangs(t *testing.T) {
	data := strings.Repeat("0123456789", 1000)
	var asked atomic.Int32
	done := make(chan struct{})
	defer close(done)
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if asked.Add(1) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			io.WriteString(w, data[:100])
			w.(http.Flusher).Flush()
			select {
			case <-done:
			case <-r.Context().Done():
			}
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(data))
	})
	repo := open(t, host, nil, Options{IdleTimeout: 300 * time.Millisecond})
	r, err := repo.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString(data), Size: int64(len(data))}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != data || err != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// A blob must have the size its descriptor says, whatever the registry sends.
func TestBlobSize(t *testing.T) {
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.(http.Flusher).Flush() // no Content-Length
			io.WriteString(w, strings.Repeat("x", 50))
		}
	})
	repo := open(t, host, nil, Options{Attempts: 2})
	for size, class := range map[int64]error{50: nil, 40: errdefs.ErrInvalidArgument, 60: errdefs.ErrUnavailable} {
		r, err := repo.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x"), Size: size}, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(r)
		if !errors.Is(err, class) {
			t.Errorf("%d bytes: %v", size, err)
		}
		r.Close()
	}
}

func TestTags(t *testing.T) {
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("last") {
		case "":
			w.Header().Set("Link", `</v2/team/web/tags/list?n=2&last=b>; rel="next"`)
			fmt.Fprint(w, `{"tags":["a","b"]}`)
		default:
			fmt.Fprint(w, `{"tags":["c"]}`)
		}
	})
	tags, err := open(t, host, nil, Options{}).Tags(t.Context())
	if err != nil || strings.Join(tags, "") != "abc" {
		t.Errorf("%v, %v", tags, err)
	}
}

// A registry on loopback may speak TLS with a certificate of its own.
func TestLoopbackTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, manifest) }))
	defer s.Close()
	if _, _, err := open(t, s.Listener.Addr().String(), nil, Options{}).Manifest(t.Context(), "1"); err != nil {
		t.Error(err)
	}
}

func TestInsecure(t *testing.T) {
	c := New(Options{Settings: Settings{Insecure: []string{"10.0.0.0/8", "reg.example:5000", "plain.example"}}})
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:1": true, "127.9.9.9": true, "[::1]:5000": true,
		"10.1.2.3:5000": true, "reg.example:5000": true, "reg.example:6000": false, "plain.example:1": true,
		"192.168.1.1": false, "registry-1.docker.io": false,
	} {
		if got := c.isInsecure(t.Context(), host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

// Whatever a registry answers for a manifest, it is verified or an error.
func FuzzManifest(f *testing.F) {
	f.Add("application/json", 200, []byte(manifest))
	f.Add("text/html", 200, []byte("<html>"))
	f.Add("application/json", 404, []byte(`{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`))
	f.Add("", 500, []byte(`{"errors":{}}`))
	f.Fuzz(func(t *testing.T, contentType string, status int, body []byte) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(string(body)))}
		if refusal("host", resp).Error() == "" {
			t.Error("a refusal without words")
		}
		for _, ref := range []string{"tag", digest.FromBytes(body).String(), digest.FromString("other").String()} {
			desc, data, err := checkManifest("host", ref, resp.Header, body)
			if err == nil && (desc.Digest != digest.FromBytes(data) || ref == digest.FromString("other").String()) {
				t.Errorf("%s: passed as %s", ref, desc.Digest)
			}
		}
	})
}
