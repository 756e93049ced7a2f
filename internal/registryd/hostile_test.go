package registryd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/catalog"
)

// What a person would lose: connections, to strangers who send a body slower
// than anybody waits for it.
func TestBodiesThatNeverEnd(t *testing.T) {
	r := start(t)
	r.bodyTimeout = 50 * time.Millisecond
	for _, path := range []string{"/", "/token", "/sign-in", "/api/v1/session", "/metrics", "/healthz"} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: registry.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na", path)
		if _, err := io.ReadAll(c); err != nil { // ends when the registry gives up
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What a person would lose: the registry, to a search of a hundred thousand
// words in every repository, while nobody can push.
func TestSearchesOfTooManyWords(t *testing.T) {
	r := start(t)
	r.push("app", "v1", "", describe("Does things"))
	until(r, "/api/v1/search", "", func(f catalog.Found) bool { return f.Total == 1 })
	// The last word is in no repository: only who reads that far misses.
	query := strings.Repeat("app+", 1000) + "nowhere"
	if f := get[catalog.Found](r, "/api/v1/search?q="+query, ""); f.Total != 1 {
		t.Error("all of a long query was searched for")
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	r := start(t)
	r.push("app", "v1", "", describe("Does things"))
	for _, kind := range []string{"repositories", "tags", "readme", "images"} {
		for _, name := range []string{"app%00v1", "App", "app%5c..", "app%2f", "%61pp%0a"} {
			r.want(404, "GET", "/api/v1/"+kind+"/"+name, "", nil)
		}
	}
	for _, reference := range []string{"..%2F..%2Frecords", "v1%00", "v1!x", "-v1"} {
		r.want(404, "GET", "/api/v1/images/app?reference="+reference, "", nil)
	}
}

// Behind a proxy that speaks TLS a cookie is not for the network in the clear.
func TestCookiesBehindAProxy(t *testing.T) {
	r := start(t, "--trusted-proxy", "127.0.0.1/32")
	r.push("app", "v1", "", describe("Does things"))
	until(r, "/api/v1/search", "", func(f catalog.Found) bool { return f.Total == 1 })
	_, header, _ := r.do("PUT", "/api/v1/stars/app", "", nil, "X-Forwarded-Proto", "https")
	cookie, err := http.ParseSetCookie(header.Get("Set-Cookie"))
	if err != nil || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("%v, %v", header, err)
	}
}

// What a person would lose: the registry's connections and files, to clients that
// ask for large blobs and read nothing of them.
func TestAClientThatReadsNothing(t *testing.T) {
	patience := stall
	stall = 500 * time.Millisecond
	t.Cleanup(func() { stall = patience })
	r := start(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	dgst := r.blob("big", "", data).Digest
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v2/big/blobs/%s HTTP/1.1\r\nHost: registry.test\r\n\r\n", dgst)
	if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); connected(t, c); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection is held")
		}
	}
	r.want(200, "GET", "/v2/big/blobs/"+dgst.String(), "", nil)
}

// connected tells whether the kernel has the other end of the connection.
func connected(t *testing.T, c net.Conn) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	_, mine, _ := strings.Cut(c.LocalAddr().String(), ":")
	_, other, _ := strings.Cut(c.RemoteAddr().String(), ":")
	from, _ := strconv.Atoi(other)
	to, _ := strconv.Atoi(mine)
	return strings.Contains(string(table), fmt.Sprintf("0100007F:%04X 0100007F:%04X 01", from, to))
}

// What a person would lose: what is private, to who spells its address so that the
// rights are asked for one name and the content for another.
func TestPathsThatPretend(t *testing.T) {
	config := write(t, "c.toml", `
[[rule]]
repositories = ["public/**"]
users = ["*"]
allow = ["write", "delete"]
[[rule]]
repositories = ["**"]
users = ["ann"]
allow = ["write"]
`)
	r := start(t, "--config", config, "--htpasswd", accounts(t, "ann:a", "bob:b"))
	dgst := r.push("private/x", "v1", "ann:a", nil)
	r.push("public/y", "v1", "bob:b", nil)
	layer := digest.FromString("layer of private/x:v1").String()
	ask := func(method, target string) (status int, body string) {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: registry.test\r\nConnection: close\r\nContent-Length: 0\r\n", method, target)
		fmt.Fprint(c, "Authorization: Basic Ym9iOmI=\r\n\r\n") // bob
		answer, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status) // 0 for no answer
		return status, string(answer)
	}
	if status, body := ask("GET", "/v2/public/y/manifests/v1"); status != 200 {
		t.Fatalf("what bob may read: %d %s", status, body)
	}
	for _, target := range []string{
		"/v2/private/x/manifests/v1", "//v2/private/x/manifests/v1", "/v2//private/x/manifests/v1", "/v2/private//x/manifests/v1",
		"/v2/public/../private/x/manifests/v1", "/v2/public/%2e%2e/private/x/manifests/v1", "/v2/public/..%2fprivate/x/manifests/v1",
		"/v2/private%2fx/manifests/v1", "/v2/%70rivate/x/manifests/v1", "/v2/PRIVATE/x/manifests/v1", "/v2/private/x/manifests/v1/",
		"/v2/private/x/manifests/v1%00", "/v2/private/x%00/manifests/v1", "/v2/private/x/manifests/" + dgst.String() + "?ns=public",
		"/v2/public/y/manifests/" + dgst.String(), "/v2/public/y/blobs/" + layer, "/v2/private/x/blobs/" + layer,
		"/v2/public/y/blobs/..%2f..%2fprivate/x/blobs/" + layer, "/v2/public/y/manifests/..%2f..%2f..%2fprivate%2fx%2fmanifests%2fv1",
		"/v2/private/x/tags/list", "/v2/private/x/referrers/" + dgst.String(), "/v2/public/y/tags/list/../../../private/x/tags/list",
		"http://other.test/v2/private/x/manifests/v1", "/v2/private/x/blobs/uploads/",
		"/api/v1/images/private/x?reference=v1", "/api/v1/images/public/../private/x?reference=v1", "/api/v1/tags/public/y/../../private/x",
		"/r/private/x", "/r/public/../private/x", "/static/../webui.go", "/static/..%2fwebui.go",
	} {
		for _, method := range []string{"GET", "HEAD", "DELETE", "PUT", "POST"} {
			status, body := ask(method, target)
			if status < 300 && !strings.Contains(target, "public/y/blobs") || strings.Contains(body, "layer of private") || strings.Contains(body, `"layers"`) {
				t.Errorf("%s %s: %d %s", method, target, status, body)
			}
		}
	}
	// A blob of one repository is mounted into another by who may read it there.
	for _, query := range []string{"mount=" + layer + "&from=private/x", "mount=" + layer, "mount=" + layer + "&from=private%2fx"} {
		if status, body := ask("POST", "/v2/public/y/blobs/uploads/?"+query); status != 202 {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	if status, _ := ask("GET", "/v2/public/y/blobs/"+layer); status != 404 {
		t.Errorf("the blob is in the other repository: %d", status)
	}
}
