package registryd

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry/catalog"
)

func describe(text string) func(*ocispec.Manifest, *ocispec.Image) {
	return func(m *ocispec.Manifest, _ *ocispec.Image) {
		m.Annotations = map[string]string{ocispec.AnnotationDescription: text}
	}
}

// get asks the API and decodes the answer.
func get[T any](r *running, path, login string) (v T) {
	r.t.Helper()
	if err := json.Unmarshal(r.want(200, "GET", path, login, nil), &v); err != nil {
		r.t.Fatal(err)
	}
	return v
}

// until asks until the catalogue has worked an event off, which it does after
// the push was answered.
func until[T any](r *running, path, login string, ok func(T) bool) T {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		status, _, body := r.do("GET", path, login, nil)
		var v T
		if status == 200 {
			if err := json.Unmarshal(body, &v); err != nil {
				r.t.Fatal(err)
			}
			if ok(v) {
				return v
			}
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("GET %s stays %d %s", path, status, body)
		}
	}
}

func names(f catalog.Found) string {
	var list []string
	for _, r := range f.Repositories {
		list = append(list, r.Name)
	}
	return strings.Join(list, " ")
}

func TestSearchShowsWhatOneMayRead(t *testing.T) {
	config := write(t, "c.toml", `
[[rule]]
repositories = ["public/**"]
users = ["anonymous"]
allow = ["read"]
[[rule]]
repositories = ["**"]
users = ["ann"]
allow = ["write"]
`)
	r := start(t, "--config", config, "--htpasswd", accounts(t, "ann:a", "bob:b"))
	r.push("public/base", "v1", "ann:a", describe("The base of everything"))
	r.push("secret/base", "v1", "ann:a", describe("A secret"))
	until(r, "/api/v1/search?q=base", "ann:a", func(f catalog.Found) bool { return f.Total == 2 })
	for _, path := range []string{"/api/v1/search?q=base", "/api/v1/search?q=secret", "/api/v1/search"} {
		for _, login := range []string{"", "bob:b"} {
			if f := get[catalog.Found](r, path, login); strings.Contains(names(f), "secret") {
				t.Errorf("%q finds %s", login, names(f))
			}
		}
	}
	for _, path := range []string{"/api/v1/repositories/", "/api/v1/tags/", "/api/v1/readme/", "/api/v1/images/", "/r/"} {
		suffix := ""
		if strings.Contains(path, "images") {
			suffix = "?reference=v1"
		}
		r.want(404, "GET", path+"secret/base"+suffix, "bob:b", nil)
		r.want(200, "GET", path+"secret/base"+suffix, "ann:a", nil)
		r.want(200, "GET", path+"public/base"+suffix, "", nil)
	}
	r.want(404, "PUT", "/api/v1/stars/secret/base", "bob:b", nil)
	r.want(401, "PUT", "/api/v1/stars/public/base", "", nil)
	if page := string(r.want(200, "GET", "/?q=base", "", nil)); strings.Contains(page, "secret") {
		t.Error("the page shows what must not be seen")
	}
}

func TestWhoPushedAndWhoLikesIt(t *testing.T) {
	r := start(t, "--htpasswd", accounts(t, "ann:a", "bob:b"))
	dgst := r.push("app", "v1", "ann:a", describe("First"))
	r.push("app", "v2", "bob:b", describe("Second\n\n\x1b[31mline"))
	d := until(r, "/api/v1/repositories/app", "ann:a", func(d catalog.Details) bool { return len(d.Pushes) == 2 })
	if d.Pushes[0].Tag != "v2" || d.Pushes[0].User != "bob" || d.Pushes[1].User != "ann" || d.Pushes[1].Digest != dgst.String() || d.Description != "Second [31mline" {
		t.Errorf("%+v", d)
	}
	for _, login := range []string{"ann:a", "bob:b", "bob:b"} {
		r.want(200, "PUT", "/api/v1/stars/app", login, nil)
	}
	r.want(200, "GET", "/v2/app/manifests/v1", "ann:a", nil)
	if d := get[catalog.Details](r, "/api/v1/repositories/app", "bob:b"); d.Stars != 2 || !d.Starred || d.Pulls != 1 {
		t.Errorf("%+v", d)
	}
	r.want(200, "DELETE", "/api/v1/stars/app", "ann:a", nil)
	image := get[catalog.Image](r, "/api/v1/images/app?reference=v1", "ann:a")
	p := image.Platforms[0]
	if image.By != "ann" || image.Digest != dgst || p.Platform != "linux/amd64" || len(p.Layers) != 1 || len(p.History) != 2 ||
		p.History[0].Size != p.Layers[0].Size || !p.History[1].Empty {
		t.Errorf("%+v", image)
	}
	tags := get[catalog.TagList](r, "/api/v1/tags/app?n=1", "ann:a")
	if len(tags.Tags) != 1 || tags.Tags[0].Tag != "v1" || tags.Last != "v1" || tags.Tags[0].User != "ann" {
		t.Errorf("%+v", tags)
	}
	// All of that is there after a restart.
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, "--root", r.root, "--htpasswd", accounts(t, "ann:a", "bob:b"))
	if d := get[catalog.Details](r, "/api/v1/repositories/app", "ann:a"); d.Stars != 1 || d.Starred || d.Pulls != 1 || len(d.Pushes) != 2 {
		t.Errorf("after a restart %+v", d)
	}
	for _, tag := range []string{"v1", "v2"} {
		m := get[catalog.Image](r, "/api/v1/images/app?reference="+tag, "ann:a")
		r.want(202, "DELETE", "/v2/app/manifests/"+m.Digest.String(), "ann:a", nil)
	}
	until(r, "/api/v1/search", "ann:a", func(f catalog.Found) bool { return f.Total == 0 })
}

func TestReadmes(t *testing.T) {
	r := start(t)
	subject := r.push("app", "latest", "", func(m *ocispec.Manifest, _ *ocispec.Image) {
		m.Annotations = map[string]string{"io.gantry.readme": "# From the annotation"}
	})
	type readme struct{ Markdown string }
	if got := until(r, "/api/v1/readme/app", "", func(readme) bool { return true }); got.Markdown != "# From the annotation" {
		t.Errorf("%+v", got)
	}
	text := r.blob("app", "", []byte("# From the <b>artifact</b>"))
	text.MediaType = catalog.ReadmeMediaType
	r.blob("app", "", []byte("{}"))
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: catalog.ReadmeArtifactType,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{text},
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.want(201, "PUT", "/v2/app/manifests/"+digest.FromBytes(body).String(), "", body, "Content-Type", ocispec.MediaTypeImageManifest)
	until(r, "/api/v1/readme/app", "", func(got readme) bool { return got.Markdown == "# From the <b>artifact</b>" })
	page := string(r.want(200, "GET", "/r/app", "", nil))
	if !strings.Contains(page, "From the <!-- raw HTML omitted -->artifact") {
		t.Error("the page does not show the README, or more than it should")
	}
}

// Signing in on the page, as a browser does it.
func TestSigningIn(t *testing.T) {
	r := start(t, "--htpasswd", accounts(t, "ann:a"))
	r.push("app", "v1", "ann:a", nil)
	until(r, "/api/v1/search", "ann:a", func(f catalog.Found) bool { return f.Total == 1 })
	form := func(path, cookie string, values url.Values, header ...string) (int, http.Header, string) {
		status, h, body := r.do("POST", path, "", []byte(values.Encode()), append(header, "Content-Type", "application/x-www-form-urlencoded", "Cookie", cookie)...)
		return status, h, string(body)
	}
	if status, _, body := form("/sign-in", "", url.Values{"username": {"ann"}, "password": {"<wrong>"}}); status != 401 || !strings.Contains(body, "Incorrect username or password.") {
		t.Errorf("%d %s", status, body)
	}
	status, header, _ := form("/sign-in", "", url.Values{"username": {"ann"}, "password": {"a"}, "next": {"/r/app"}})
	if status != 303 || header.Get("Location") != "/r/app" {
		t.Fatalf("%d %v", status, header)
	}
	cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")
	if page := string(r.want(200, "GET", "/r/app", "", nil, "Cookie", cookie)); !strings.Contains(page, `<span class="user" title="Signed in">ann</span>`) {
		t.Error("the page does not know who signed in")
	}
	if status, _, _ := form("/star", cookie, url.Values{"name": {"app"}, "give": {"yes"}}); status != 303 {
		t.Errorf("a star: %d", status)
	}
	if status, _, _ := form("/star", cookie, url.Values{"name": {"app"}, "give": {"no"}}, "Sec-Fetch-Site", "cross-site"); status != 403 {
		t.Errorf("a star of another site: %d", status)
	}
	for _, header := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		for method, path := range map[string]string{"DELETE": "/api/v1/stars/app", "POST": "/api/v1/session", "PUT": "/api/v1/stars/app"} {
			r.want(403, method, path, "", []byte("{}"), "Cookie", cookie, header[0], header[1])
		}
	}
	if d := get[catalog.Details](r, "/api/v1/repositories/app", "ann:a"); d.Stars != 1 {
		t.Errorf("%+v", d)
	}
	r.want(401, "GET", "/v2/app/manifests/v1", "", nil, "Cookie", cookie)
	_, header, _ = form("/sign-out", cookie, nil)
	if !strings.Contains(header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("the session is not taken back: %v", header)
	}
	r.want(404, "GET", "/r/app", "", nil, "Cookie", cookie) // also for who has copied it
}

// The stock Docker CLI searches through its daemon, which asks this.
func TestSearchOfVersion1(t *testing.T) {
	r := start(t, "--htpasswd", accounts(t, "ann:a"), "--anonymous-read")
	r.push("team/app", "v1", "ann:a", describe("Does things"))
	until(r, "/api/v1/search", "ann:a", func(f catalog.Found) bool { return f.Total == 1 })
	r.want(200, "PUT", "/api/v1/stars/team/app", "ann:a", nil)
	status, header, _ := r.do("GET", "/v1/_ping", "", nil)
	if status != 200 || header.Get("X-Docker-Registry-Standalone") != "true" {
		t.Errorf("%d %v", status, header)
	}
	type results struct {
		Query      string
		NumResults int `json:"num_results"`
		Results    []struct {
			Name, Description string
			StarCount         int `json:"star_count"`
		}
	}
	got := get[results](r, "/v1/search?q=app&n=25", "")
	if got.Query != "app" || got.NumResults != 1 || got.Results[0].Name != "team/app" || got.Results[0].StarCount != 1 || got.Results[0].Description != "Does things" {
		t.Errorf("%+v", got)
	}
	r.want(401, "GET", "/v1/search?q=app", "ann:wrong", nil)
	r.want(400, "GET", "/v1/search?q=app&n=x", "", nil)
}

// The pages as a browser sees them: no error of the policy, no script that fails.
func TestPagesInABrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	r := start(t)
	r.push("team/app", "v1", "", describe("Does <i>things</i>"))
	until(r, "/api/v1/search", "", func(f catalog.Found) bool { return f.Total == 1 })
	for _, path := range []string{"/", "/r/team/app", "/r/team/app?view=tags", "/r/team/app?tag=v1"} {
		cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0",
			"--user-data-dir="+t.TempDir(), "--dump-dom", "http://"+r.addr+path)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		var dom, log strings.Builder
		cmd.Stdout, cmd.Stderr = &dom, &log
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "CONSOLE") {
				t.Errorf("%s: %s", path, line)
			}
		}
		if !strings.Contains(dom.String(), "team/app") || strings.Contains(dom.String(), "data-copy") && strings.Contains(dom.String(), `aria-label="Copy the command" hidden`) {
			t.Errorf("%s: the script did not run, or nothing is shown", path)
		}
	}
}
