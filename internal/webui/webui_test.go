package webui

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// hostile is what everybody can write into an image. Each has the word EVIL,
// which must be found as text, and nowhere where a browser would act on it.
func hostile() []string {
	return []string{
		`<script>EVIL()</script>`, `"><img src=x onerror=EVIL()>`, `' onmouseover='EVIL()`, `javascript:EVIL()`,
		`</title><svg onload=EVIL()>`, `{{EVIL}}`, `</textarea><iframe src=javascript:EVIL()>`, "\u202eEVIL\x00\x1b[31m",
		`<!--EVIL--!><b>`, `data:text/html,<script>EVIL()</script>`,
	}
}

// everywhere is an API that answers with the text wherever there is one.
func everywhere(text string) http.Handler {
	now := time.Now()
	layers := []layer{{Digest: text, MediaType: text, Title: text, Size: -5}}
	cfg := &config{Author: text, User: text, WorkingDir: text, Entrypoint: []string{text}, Cmd: []string{text}, Env: []string{text},
		Ports: []string{text}, Volumes: []string{text}, Labels: map[string]string{text: text}}
	repo := repository{Name: text, Description: text, Stars: 1, Updated: now}
	p := push{Tag: text, Digest: text, User: text, Time: now}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var document any
		switch part := strings.Split(r.URL.Path, "/")[3]; part {
		case "session":
			document = session{User: text, SignIn: true, Stars: true}
		case "search":
			document = map[string]any{"query": text, "total": 41, "page": 2, "pages": 3, "repositories": []repository{repo}}
		case "repositories":
			document = map[string]any{"name": text, "description": text, "stars": 2, "updated": now, "pushes": []push{p}}
		case "tags":
			document = map[string]any{"last": text, "tags": []any{map[string]any{"tag": text, "digest": text, "user": text, "time": now, "mediaType": text, "platforms": []string{text}, "size": 3}}}
		case "readme":
			document = map[string]string{"markdown": text + "\n\n[" + text + "](" + text + ")\n\n![" + text + "](" + text + ")\n\n<" + text + ">\n\n`" + text + "`\n"}
		case "images":
			document = image{Reference: text, Digest: text, MediaType: text, ArtifactType: text, By: text, Pushed: now, More: 2,
				Annotations: map[string]string{text: text}, Referrers: []referrer{{Digest: text, ArtifactType: text}},
				Platforms: []platform{{Platform: text, Digest: text, Created: &now, Layers: layers, Config: cfg,
					History: []step{{CreatedBy: text, Comment: text, Created: &now}}}, {Platform: text, Missing: true}}}
		default:
			w.WriteHeader(http.StatusNotFound)
			document = map[string]string{"message": text}
		}
		_ = json.NewEncoder(w).Encode(document)
	})
}

func show(t *testing.T, api http.Handler, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	New(api, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

// What a person would lose: his session, to who pushed an image with a name.
func TestNothingHostileActs(t *testing.T) {
	paths := []string{"/?q=%3Cscript%3EEVIL()%3C/script%3E&sort=%22EVIL", "/r/EVIL", "/r/EVIL?view=tags", "/r/EVIL?view=activity",
		"/r/EVIL?tag=%22%3EEVIL", "/sign-in?next=javascript:EVIL()", "/nothing/%3CEVIL%3E"}
	for _, text := range hostile() {
		for _, path := range paths {
			resp := show(t, everywhere(text), "GET", path)
			if csp := resp.Header.Get("Content-Security-Policy"); csp != policy || strings.Contains(csp, "unsafe") {
				t.Fatalf("%s has the policy %q", path, csp)
			}
			if resp.StatusCode >= 500 {
				t.Errorf("%s with %q: %d", path, text, resp.StatusCode)
			}
			doc, err := html.Parse(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			inspect(t, doc, path+" with "+text, true)
		}
	}
}

// inspect fails for everything that could act: elements and attributes that are
// not of our pages, or addresses that are not of the web.
func inspect(t *testing.T, n *html.Node, where string, page bool) {
	t.Helper()
	if n.Type == html.ElementNode {
		switch n.Data {
		case "iframe", "object", "embed", "base", "math", "style":
			t.Errorf("%s: there is a %s", where, n.Data)
		case "script":
			if !page || !ofOurs(n, "app.js") || n.FirstChild != nil {
				t.Errorf("%s: there is a script", where)
			}
		case "img":
			if !page || !ofOurs(n, "icon.svg") {
				t.Errorf("%s: there is a picture from %q", where, attribute(n, "src"))
			}
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "srcdoc" {
				t.Errorf("%s: %s has %s=%q", where, n.Data, a.Key, a.Val)
			}
			switch a.Key {
			case "href", "src", "action", "formaction":
				u, err := url.Parse(a.Val)
				if err != nil || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "mailto" {
					t.Errorf("%s: %s leads to %q", where, n.Data, a.Val)
				}
			}
		}
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		inspect(t, c, where, page)
	}
}

// ofOurs tells whether an element loads the file of this package.
func ofOurs(n *html.Node, name string) bool {
	address, err := asset(name)
	return err == nil && attribute(n, "src") == address
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{
		"# A\n\n*b* `c`":                      "<h1>A</h1>\n<p><em>b</em> <code>c</code></p>\n",
		"[x](https://y.example/)":             `<p><a href="https://y.example/" rel="nofollow noopener noreferrer ugc">x</a></p>` + "\n",
		"[x](javascript:alert(1))":            "<p>x</p>\n",
		"[x](/sign-out)":                      "<p>x</p>\n",
		"[x](//evil.example)":                 "<p>x</p>\n",
		"![x](https://y.example/p.png)":       `<p><a href="https://y.example/p.png" rel="nofollow noopener noreferrer ugc">x</a></p>` + "\n",
		"[![b](https://y/p.png)](https://z/)": `<p><a href="https://z/" rel="nofollow noopener noreferrer ugc">b</a></p>` + "\n",
		"a <b onclick=x>c</b>":                "<p>a <!-- raw HTML omitted -->c<!-- raw HTML omitted --></p>\n",
		"<javascript:alert(1)>":               "<p>javascript:alert(1)</p>\n",
	} {
		got, err := render(in)
		if err != nil || string(got) != want {
			t.Errorf("%s\n got %s\nwant %s %v", in, got, want, err)
		}
	}
}

func FuzzMarkdown(f *testing.F) {
	for _, text := range hostile() {
		f.Add("[" + text + "](" + text + ")")
		f.Add(text)
	}
	f.Add("| a |\n|:-:|\n| <x> |\n")
	f.Add("[a]: javascript:x\n[a] ![a] <a@b>")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		out, err := render(text)
		if err != nil {
			return
		}
		doc, err := html.Parse(strings.NewReader("<article>" + string(out) + "</article>"))
		if err != nil {
			t.Fatal(err)
		}
		inspect(t, doc, text, false)
	})
}

// Where a sign-in leads to is a page of ours.
func TestNext(t *testing.T) {
	for in, want := range map[string]string{
		"/r/a?tag=1": "/r/a?tag=1", "": "/", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/",
		"javascript:x": "/", "/sign-in?next=/": "/", "/\t/evil.example": "/", "evil": "/",
	} {
		if got := ours(in); got != want {
			t.Errorf("%q leads to %q, want %q", in, got, want)
		}
	}
}

// A page of another site cannot give stars or sign people out.
func TestOtherSites(t *testing.T) {
	asked := false
	ui := New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = asked || r.Method != "GET"
		_, _ = w.Write([]byte("{}"))
	}), slog.New(slog.DiscardHandler))
	for _, path := range []string{"/star", "/sign-out", "/sign-in"} {
		r := httptest.NewRequest("POST", path, strings.NewReader("name=a&give=yes"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://evil.example")
		w := httptest.NewRecorder()
		ui.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || asked {
			t.Errorf("%s: %d, and the API was asked: %v", path, w.Code, asked)
		}
	}
}

func TestPagesNeedNothingFromElsewhere(t *testing.T) {
	for _, path := range []string{"/static/app.js", "/static/style.css", "/static/icon.svg"} {
		resp := show(t, http.NotFoundHandler(), "GET", path)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") == "" {
			t.Errorf("%s: %d %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
	entries, err := files.ReadDir("pages")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := files.ReadFile("pages/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if text := string(data); strings.Contains(text, "https://") || strings.Contains(text, "http://") || strings.Contains(text, " style=") || strings.Contains(text, " onclick") {
			t.Errorf("%s needs something from elsewhere, or has something the policy forbids", e.Name())
		}
	}
}

// What a person would lose: a page that looks as it should, for an hour after the
// registry was upgraded.
func TestFilesAreKeptByTheirContent(t *testing.T) {
	address, err := asset("style.css")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{address: "public, max-age=31536000, immutable", "/static/style.css": "public, max-age=3600"} {
		resp := show(t, everywhere(""), "GET", path)
		if got := resp.Header.Get("Cache-Control"); resp.StatusCode != 200 || got != want {
			t.Errorf("%s: %d %q, want %q", path, resp.StatusCode, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		plural(1, "day"): "1 day", plural(19, "day"): "19 days", plural(2, "repository"): "2 repositories", count(1200): "1.2K", count(34_000_000): "34M",
		ago(90 * time.Minute): "1 hour ago", short("sha256:0123456789abcdef"): "0123456789ab", command("/bin/sh -c #(nop) CMD [\"a\"]"): `CMD ["a"]`,
		size(4_830_000): "4.83 MB", size(999): "999 B", size(-1): "0 B", content("application/vnd.oci.image.layer.v1.tar+gzip"): "tar+gzip", content("text/markdown"): "text/markdown",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
