package registryd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
)

// running is a registry of the test's own.
type running struct {
	*Server
	t    *testing.T
	addr string
	root string
	stop func() error
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	root := ""
	for i, arg := range args {
		if arg == "--root" {
			root = args[i+1]
		}
	}
	if root == "" {
		root = t.TempDir()
		args = append(args, "--root", root)
	}
	c, err := Parse(append(args, "--listen", "127.0.0.1:0", "--log-level", "error"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Start(ctx, c)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	stopped := false
	r := &running{Server: s, t: t, addr: s.Addresses()[0], root: root}
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func accounts(t *testing.T, pairs ...string) string {
	t.Helper()
	var text strings.Builder
	for _, pair := range pairs {
		user, password, _ := strings.Cut(pair, ":")
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s:%s\n", user, hash)
	}
	return write(t, "htpasswd", text.String())
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// do makes a request with credentials "user:password", or none.
func (r *running) do(method, path, login string, body []byte, header ...string) (int, http.Header, []byte) {
	r.t.Helper()
	target := path
	if !strings.HasPrefix(path, "http") {
		target = "http://" + r.addr + path
	}
	req, err := http.NewRequest(method, target, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if user, password, ok := strings.Cut(login, ":"); ok {
		req.SetBasicAuth(user, password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, data
}

// want is do for what has to succeed, or fail, with a status.
func (r *running) want(status int, method, path, login string, body []byte, header ...string) []byte {
	r.t.Helper()
	got, _, data := r.do(method, path, login, body, header...)
	if got != status {
		r.t.Fatalf("%s %s as %q: %d %s, want %d", method, path, login, got, data, status)
	}
	return data
}

func (r *running) blob(repository, login string, data []byte) ocispec.Descriptor {
	r.t.Helper()
	dgst := digest.FromBytes(data)
	r.want(201, "POST", "/v2/"+repository+"/blobs/uploads/?digest="+dgst.String(), login, data, "Content-Type", "application/octet-stream")
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: int64(len(data))}
}

// push pushes an image of one layer, and returns its digest.
func (r *running) push(repository, tag, login string, edit func(*ocispec.Manifest, *ocispec.Image)) digest.Digest {
	r.t.Helper()
	layer := r.blob(repository, login, []byte("layer of "+repository+":"+tag))
	layer.MediaType = ocispec.MediaTypeImageLayer
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}
	image := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		History: []ocispec.History{{CreatedBy: "/bin/sh -c #(nop) ADD file:x in /"}, {CreatedBy: "CMD [\"sh\"]", EmptyLayer: true}}}
	if edit != nil {
		edit(&m, &image)
	}
	config, err := json.Marshal(image)
	if err != nil {
		r.t.Fatal(err)
	}
	m.Config = r.blob(repository, login, config)
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	body, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	r.want(201, "PUT", "/v2/"+repository+"/manifests/"+tag, login, body, "Content-Type", ocispec.MediaTypeImageManifest)
	return digest.FromBytes(body)
}

func TestAnOpenRegistry(t *testing.T) {
	r := start(t)
	dgst := r.push("team/app", "v1", "", nil)
	if got := r.want(200, "GET", "/v2/team/app/manifests/v1", "", nil); digest.FromBytes(got) != dgst {
		t.Error("other bytes than were pushed")
	}
	if text := string(r.want(200, "GET", "/metrics", "", nil)); !strings.Contains(text, `route="manifest"`) {
		t.Error("no figures of manifests")
	}
	r.want(200, "GET", "/healthz", "", nil)
	r.want(200, "GET", "/", "", nil)
}

// What a person would lose: his images, to whoever finds the address.
func TestRights(t *testing.T) {
	config := write(t, "registry.toml", `
[groups]
dev = ["bob"]
[[rule]]
repositories = ["public/**"]
users = ["anonymous"]
allow = ["read"]
[[rule]]
repositories = ["**"]
users = ["ann"]
allow = ["read", "write", "delete"]
[[rule]]
repositories = ["team/*"]
users = ["@dev"]
allow = ["write"]
`)
	r := start(t, "--config", config, "--htpasswd", accounts(t, "ann:a", "bob:b"))
	r.push("public/x", "v1", "ann:a", nil)
	dgst := r.push("team/app", "v1", "bob:b", nil)
	r.push("private/x", "v1", "ann:a", nil)
	for _, c := range []struct {
		method, path, login string
		status              int
	}{
		{"GET", "/v2/", "", 401}, {"GET", "/v2/", "ann:a", 200}, {"GET", "/v2/", "ann:x", 401},
		{"GET", "/v2/public/x/manifests/v1", "", 200}, {"GET", "/v2/public/x/manifests/v1", "bob:b", 200},
		{"GET", "/v2/team/app/manifests/v1", "", 401}, {"GET", "/v2/team/app/manifests/v1", "bob:b", 200},
		{"GET", "/v2/private/x/manifests/v1", "bob:b", 403}, {"GET", "/v2/private/nothing/manifests/v1", "bob:b", 403},
		{"DELETE", "/v2/team/app/manifests/" + dgst.String(), "bob:b", 403},
		{"POST", "/v2/public/x/blobs/uploads/", "bob:b", 403}, {"POST", "/v2/public/x/blobs/uploads/", "", 401},
		{"GET", "/metrics", "", 401}, {"GET", "/metrics", "bob:b", 200},
		{"DELETE", "/v2/team/app/manifests/" + dgst.String(), "ann:a", 202},
	} {
		if status, _, body := r.do(c.method, c.path, c.login, nil); status != c.status {
			t.Errorf("%s %s as %q: %d %s, want %d", c.method, c.path, c.login, status, body, c.status)
		}
	}
	r.push("team/app", "v2", "bob:b", nil)
	for login, want := range map[string]string{"ann:a": "private/x public/x team/app", "bob:b": "public/x team/app"} {
		var list struct{ Repositories []string }
		if err := json.Unmarshal(r.want(200, "GET", "/v2/_catalog", login, nil), &list); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(list.Repositories, " "); got != want {
			t.Errorf("%s sees %s, want %s", login, got, want)
		}
		data := r.want(200, "GET", "/v2/_catalog?n=1", login, nil)
		if err := json.Unmarshal(data, &list); err != nil || len(list.Repositories) != 1 {
			t.Errorf("a page of one is %s", data)
		}
	}
}

// The stock client, through its own engine-less ways: skopeo logs in, copies and
// deletes with basic credentials and with tokens, in plain HTTP and in TLS.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	for name, args := range map[string][]string{
		"basic": nil, "tokens": {"--tokens"}, "anonymous": {"--anonymous-read"}, "tls": {"--tls-self-signed", "--tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, append(args, "--htpasswd", accounts(t, "ann:secret"))...)
			verify := []string{"--tls-verify=false"}
			if name == "tls" {
				certs := t.TempDir()
				ca, err := os.ReadFile(filepath.Join(r.root, "tls", "ca.crt"))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(certs, "ca.crt"), ca, 0o600); err != nil {
					t.Fatal(err)
				}
				verify = []string{"--cert-dir", certs}
			}
			run := func(ok bool, args ...string) string {
				t.Helper()
				cmd := exec.Command(skopeo, args...)
				cmd.Env = append(os.Environ(), "REGISTRY_AUTH_FILE="+filepath.Join(r.root, "auth.json"))
				out, err := cmd.CombinedOutput()
				if (err == nil) != ok {
					t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
				}
				return string(out)
			}
			with := func(command string, args ...string) []string {
				return append(append([]string{command}, verify...), args...)
			}
			layout := "oci:" + ociLayout(t) + ":v1"
			target := "docker://" + r.addr + "/team/app:v1"
			inDest := func(flags []string) (to []string) {
				for _, f := range flags {
					to = append(to, strings.Replace(f, "--", "--dest-", 1))
				}
				return to
			}
			run(false, append(append([]string{"copy"}, inDest(verify)...), layout, target)...)
			run(false, with("login", "-u", "ann", "-p", "wrong", r.addr)...)
			run(true, with("login", "-u", "ann", "-p", "secret", r.addr)...)
			run(true, append(append([]string{"copy"}, inDest(verify)...), layout, target)...)
			if out := run(true, with("inspect", target)...); !strings.Contains(out, "team/app") {
				t.Errorf("inspect: %s", out)
			}
			run(true, with("logout", r.addr)[0], r.addr)
			run(name == "anonymous", with("inspect", target)...)
			run(false, with("delete", target)...)
			run(true, append(with("delete"), "--creds", "ann:secret", target)...)
		})
	}
}

// ociLayout is a directory with an image v1 in it.
func ociLayout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(data []byte, mediaType string) ocispec.Descriptor {
		dgst := digest.FromBytes(data)
		path := filepath.Join(dir, "blobs", "sha256", dgst.Encoded())
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(data))}
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	layer := make([]byte, 10240) // an empty archive
	config := put(encode(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}}), ocispec.MediaTypeImageConfig)
	m := put(encode(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{put(layer, ocispec.MediaTypeImageLayer)}}), ocispec.MediaTypeImageManifest)
	m.Annotations = map[string]string{ocispec.AnnotationRefName: "v1"}
	index := encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{m}})
	for name, data := range map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSelfMadeCertificates(t *testing.T) {
	root := t.TempDir()
	r := start(t, "--tls-self-signed", "--tls-name", "registry.example", "--root", root)
	ca, err := os.ReadFile(filepath.Join(root, "tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	serial := func(r *running, name string) string {
		t.Helper()
		conn, err := tls.Dial("tcp", r.addr, &tls.Config{RootCAs: pool, ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial(r, "registry.example")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	resp, err := client.Get("https://" + r.addr + "/v2/")
	if err != nil || resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Fatalf("%+v %v", resp, err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, "--tls-self-signed", "--tls-name", "registry.example", "--root", root)
	if again := serial(r, "localhost"); again != first {
		t.Error("a restart made another certificate")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, "--tls-self-signed", "--tls-name", "other.example", "--root", root)
	if again := serial(r, "other.example"); again == first {
		t.Error("the certificate does not follow its names")
	}
}

func TestGivenCertificatesAreReadAgain(t *testing.T) {
	maker := authority{dir: t.TempDir(), log: start(t).log}
	if err := maker.renew([]string{"127.0.0.1"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	r := start(t, "--tls-cert", maker.path("server.crt"), "--tls-key", maker.path("server.key"))
	before := r.certs.present.Load().Leaf.SerialNumber
	if err := maker.renew([]string{"127.0.0.1", "more.example"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := r.reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r.certs.present.Load().Leaf.SerialNumber.Cmp(before) == 0 {
		t.Error("the old certificate is still shown")
	}
}

// A reload with a broken file changes nothing; with a good one, rights at once.
func TestReload(t *testing.T) {
	config := write(t, "registry.toml", "")
	r := start(t, "--config", config, "--htpasswd", accounts(t, "ann:a", "bob:b"))
	r.push("x", "v1", "bob:b", nil)
	for _, c := range []struct {
		text   string
		ok     bool
		status int
	}{
		{"[[rule]]\nrepositories = [\"**\"]\nusers = [\"ann\"]\nallow = [\"read\"]\n", true, 403},
		{"[[rule]]\nrepositories = [\"**\"]\nusers = [\"bob\"]\nallow = [\"fly\"]\n", false, 403},
		{"nonsense = true\n", false, 403},
		{"", true, 200},
	} {
		if err := os.WriteFile(config, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.reload(context.Background()); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.text, err)
		}
		r.want(c.status, "GET", "/v2/x/manifests/v1", "bob:b", nil)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"nonsense = true":                   "line 1: there is no key nonsense",
		"listen = [\"here\"]":               `cannot listen on "here"`,
		"[tls]\ncert = \"x\"":               "give both tls-cert and tls-key",
		"[gc]\nevery = \"often\"":           "is no duration",
		"[[mirror]]\nregistry = 7":          "line 2",
		"[accounts]\nanonymous-read = true": "only where there are accounts",
	} {
		_, err := Parse([]string{"--config", write(t, "c.toml", text)}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := Parse([]string{"--listen", "127.0.0.1:0", "extra"}, io.Discard); err == nil {
		t.Error("arguments are taken")
	}
}

// The configuration in the documentation is one.
func TestTheDocumentedConfiguration(t *testing.T) {
	doc, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	authority := start(t, "--tls-self-signed")
	pem, err := os.ReadFile(filepath.Join(authority.root, "tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	users, err := os.ReadFile(accounts(t, "ann:a", "bob:b"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"users": users, "clients.pem": pem, "auth.pem": pem, "hub-password": []byte("secret\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	blocks := 0
	for rest := string(doc); ; blocks++ {
		_, after, ok := strings.Cut(rest, "```toml\n")
		if !ok {
			break
		}
		var block string
		if block, rest, ok = strings.Cut(after, "```"); !ok {
			t.Fatal("a block does not end")
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.toml", blocks))
		if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, "--config", path, "--root", t.TempDir(), "--metrics-listen", "127.0.0.1:0")
	}
	if blocks < 2 {
		t.Errorf("the documentation has %d configurations", blocks)
	}
}

func TestFlagsCountMoreThanTheFile(t *testing.T) {
	path := write(t, "c.toml", "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nroot = \"data\"\n[accounts]\nhtpasswd = \"users\"\n[gc]\nevery = \"2d\"\n")
	c, err := Parse([]string{"--config", path, "--listen", "127.0.0.1:3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	if strings.Join(c.Listen, " ") != "127.0.0.1:3" || c.Root != filepath.Join(dir, "data") || c.Accounts.Htpasswd != filepath.Join(dir, "users") || c.GC.Every.String() != "48h0m0s" {
		t.Errorf("%+v", c)
	}
}

// A proxy that is trusted says who asks; nobody else does.
func TestProxies(t *testing.T) {
	seen := ""
	handler := func(list ...string) http.Handler {
		c := &Config{TrustedProxies: list, Root: "/x"}
		c.defaults()
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		return behind(c.proxies, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			seen = r.RemoteAddr + " " + r.URL.Scheme + " " + r.Host
		}))
	}
	ask := func(h http.Handler) string {
		r := httptest.NewRequest("GET", "/v2/", nil)
		r.RemoteAddr, r.Host, r.URL.Scheme = "10.0.0.1:99", "inside", ""
		r.Header.Set("X-Forwarded-For", "6.6.6.6, 198.51.100.7, 10.0.0.2")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-Host", "registry.example")
		h.ServeHTTP(httptest.NewRecorder(), r)
		return seen
	}
	if got := ask(handler("10.0.0.0/8")); got != "198.51.100.7:0 https registry.example" {
		t.Error(got)
	}
	if got := ask(handler("192.0.2.1")); got != "10.0.0.1:99  inside" {
		t.Error(got)
	}
}

// What a person would lose: an image that is in use, or a disk full of what is
// not. The serving process collects when another one is asked to.
func TestCollection(t *testing.T) {
	config := write(t, "registry.toml", "[gc]\ngrace = \"0s\"\nuntagged = true\n[[retention]]\nrepositories = [\"ci/**\"]\nkeep-last = 1\n")
	r := start(t, "--config", config)
	r.push("ci/build", "one", "", nil)
	r.push("ci/build", "two", "", nil)
	kept := r.push("app", "v1", "", nil)
	loose := r.blob("app", "", []byte("nobody names this"))
	collect := func(args ...string) *Report {
		t.Helper()
		var out bytes.Buffer
		args = append([]string{"--root", r.root, "--config", config, "--format", "json"}, args...)
		if err := runCollect(context.Background(), args, &out); err != nil {
			t.Fatal(err)
		}
		report := &Report{}
		if err := json.Unmarshal(out.Bytes(), report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	if dry := collect("--dry-run"); dry.Tags != 1 || len(dry.Items) == 0 {
		t.Errorf("a dry run reports %+v", dry)
	}
	r.want(200, "GET", "/v2/ci/build/manifests/one", "", nil)
	if done := collect(); done.Tags != 1 || done.Manifests != 1 || done.Blobs < 1 {
		t.Errorf("collected %+v", done)
	}
	r.want(404, "GET", "/v2/ci/build/manifests/one", "", nil)
	r.want(200, "GET", "/v2/ci/build/manifests/two", "", nil)
	r.want(200, "GET", "/v2/app/manifests/"+kept.String(), "", nil)
	r.want(404, "GET", "/v2/app/blobs/"+loose.Digest.String(), "", nil)
	if text := string(r.want(200, "GET", "/metrics", "", nil)); !strings.Contains(text, `gantry_registry_gc_runs_total{result="success"} 1`) {
		t.Error("the figures do not know of the collection")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	again := start(t, "--root", r.root, "--config", config)
	if at := again.lastCollection(context.Background()); time.Since(at) > time.Hour || at.Nanosecond() != 0 {
		t.Errorf("a restart forgot when garbage was collected: %v", at)
	}
	if err := again.stop(); err != nil {
		t.Fatal(err)
	}
	collect() // nobody serves it now: this process does it
}
